"""Curvature by random signs: the diagonal of the Gauss-Newton matrix, against autograd's Hessian."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gracile.quantize.rounding.curvature import curvatures


@settings(max_examples=4)
@given(st.integers(0, 10_000))
def test_average_of_many_rounds_is_the_diagonal_of_the_hessian(seed: int) -> None:
    """For outputs that are linear in the parameters the Gauss-Newton matrix is the Hessian."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(5, 3, generator=draw)
    weight = torch.randn(3, 2, generator=draw).requires_grad_()
    bias = torch.zeros(2, requires_grad=True)
    parts = (torch.tensor(0.3), torch.tensor(2.0))

    def outputs(weight: torch.Tensor, bias: torch.Tensor) -> list[torch.Tensor]:
        first = x @ weight + bias
        return [first, first[:, :1] * 0.5]

    def error(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [c * y.square().sum() for c, y in zip(parts, outputs(weight, bias), strict=True)]
        ).sum()

    found = curvatures(
        lambda: list(zip(outputs(weight, bias), parts, strict=True)), [weight, bias], 4000, draw
    )
    exact = torch.autograd.functional.hessian(error, (weight, bias))  # type: ignore[no-untyped-call]
    for i, (got, parameter) in enumerate(zip(found, (weight, bias), strict=True)):
        diagonal = exact[i][i].reshape(parameter.numel(), -1).diagonal().reshape(parameter.shape)
        assert torch.allclose(got, diagonal, rtol=0.2, atol=1e-3)
        assert got.requires_grad is False


def test_one_round_is_never_negative_and_leaves_gradients_alone() -> None:
    weight = torch.randn(4, requires_grad=True)
    draw = torch.Generator().manual_seed(0)
    (found,) = curvatures(lambda: [(torch.randn(8, 4) @ weight, torch.tensor(1.0))], [weight], 1, draw)
    assert bool((found >= 0).all())
    assert weight.grad is None
    assert float(found.max()) > 0


def test_the_signs_are_those_of_the_generator() -> None:
    x, weight = torch.randn(8, 4), torch.randn(4, requires_grad=True)
    first, again = (
        curvatures(lambda: [(x @ weight, torch.tensor(1.0))], [weight], 2, torch.Generator().manual_seed(7))[
            0
        ]
        for _ in range(2)
    )
    assert first.tolist() == pytest.approx(again.tolist(), rel=1e-6)
