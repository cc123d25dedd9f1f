"""Coordinate descent: the error never grows, and in the end no single move lowers it."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gracile.quantize.rounding.coordinate_descent import descend


def errors(weight: Tensor, found: Tensor, steps: Tensor, covariance: Tensor) -> Tensor:
    off = weight - found * steps
    return ((off @ covariance) * off).sum(2)


def problem(seed: int, reach: int, groups: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    weight = torch.randn(groups, 3, 6, dtype=torch.float64)
    mix = torch.randn(groups, 6, 6, dtype=torch.float64) + 0.7
    steps = (weight.abs().amax(2, keepdim=True) / reach).expand_as(weight)
    return weight, steps, mix @ mix.mT + 0.01 * torch.eye(6), (weight / steps).round()


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 7]))
def test_no_single_move_is_left_that_helps(seed: int, reach: int) -> None:
    weight, steps, covariance, start = problem(seed, reach)
    before = start.clone()
    found = descend(weight, steps, covariance, start, qmin=-reach, qmax=reach, passes=200)
    assert torch.equal(start, before)
    assert torch.equal(found, found.round())
    assert found.abs().max() <= reach
    least = errors(weight, found, steps, covariance)
    assert bool((least <= errors(weight, start, steps, covariance) * (1 + 1e-9)).all())
    for k in range(weight.shape[2]):
        for move in (-1, 1):
            tried = found.clone()
            tried[:, :, k] = (tried[:, :, k] + move).clamp(-reach, reach)
            assert bool((errors(weight, tried, steps, covariance) >= least * (1 - 1e-9)).all())


def test_each_pass_lowers_the_error_further() -> None:
    weight, steps, covariance, start = problem(3, 3, groups=40)
    sums = []
    for passes in (0, 1, 5):
        found = descend(weight, steps, covariance, start, qmin=-3, qmax=3, passes=passes)
        sums.append(float(errors(weight, found, steps, covariance).sum()))
    assert sums[0] > 1.2 * sums[1] >= 1.2 * sums[2]


def test_pruned_weights_stay_zero() -> None:
    weight, steps, covariance, start = problem(1, 3)
    weight[:, :, ::2] = 0
    start[:, :, ::2] = 0
    found = descend(weight, steps, covariance, start, qmin=-3, qmax=3, passes=5)
    assert bool((found[:, :, ::2] == 0).all())


def test_what_it_starts_from_is_left_alone_also_with_one_input() -> None:
    weight, steps, start = torch.full((1, 2, 1), 2.0), torch.ones(1, 2, 1), torch.zeros(1, 2, 1)
    found = descend(weight, steps, torch.ones(1, 1, 1), start, qmin=-3, qmax=3, passes=1)
    assert found.tolist() == [[[2.0], [2.0]]]
    assert not start.any()
