"""Learned rounding against all choices of up and down."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.quantize import AdaRound, Bits, Nearest, Scheme, ptq
from gracile.quantize.rounding import learn_up_or_down
from gracile.quantize.rounding.learned import logits_of, rectified_sigmoid, undecided


def loss(weight: Tensor, rounded: Tensor, scale: Tensor, covariance: Tensor) -> float:
    off = weight - rounded * scale[..., None]
    return float((off @ covariance * off).sum())


@settings(max_examples=8)
@given(st.integers(0, 10_000), st.sampled_from([2, 3, 4, 8]))
def test_near_the_best_of_all_roundings(seed: int, bits: int) -> None:
    """Brute force over both neighbours of each of six weights."""
    torch.manual_seed(seed)
    reach = 2 ** (bits - 1) - 1
    mix = torch.randn(1, 6, 6) + 0.7
    weight, covariance = torch.randn(1, 1, 6), mix @ mix.mT / 6
    scale = weight.abs().amax(2) / reach
    found = learn_up_or_down(weight, scale, covariance, -reach, reach, iterations=300)
    down = torch.floor(weight / scale[..., None])
    tried = [
        loss(weight, (down + torch.tensor(up)).clamp(-reach, reach), scale, covariance)
        for up in itertools.product([0.0, 1.0], repeat=6)
    ]
    worst, best = max(tried), min(tried)
    assert loss(weight, found, scale, covariance) <= best + 0.25 * (worst - best)
    assert bool(((found - weight / scale[..., None]).abs() <= 1 + 1e-5).all())


@pytest.mark.parametrize("bits", [2, 4])
def test_better_than_the_nearest(bits: int) -> None:
    generator = torch.Generator().manual_seed(3)
    reach = 2 ** (bits - 1) - 1
    weight, mix = torch.randn(2, 12, 16, generator=generator), torch.randn(2, 16, 16, generator=generator)
    covariance = (mix + 0.7) @ (mix + 0.7).mT
    scale = weight.abs().amax(2) / reach
    found = learn_up_or_down(weight, scale, covariance, -reach, reach)
    nearest = torch.round(weight / scale[..., None]).clamp(-reach, reach)
    assert torch.equal(found, found.round())
    assert loss(weight, found, scale, covariance) < 0.8 * loss(weight, nearest, scale, covariance)


def test_pruned_weights_stay_zero() -> None:
    weight = torch.tensor([[[0.0, 0.4, 0.0, 0.45]]])
    found = learn_up_or_down(weight, torch.ones(1, 1), torch.ones(1, 4, 4), -7, 7)
    assert found[0, 0, [0, 2]].tolist() == [0.0, 0.0]
    assert float(found.sum()) == 1.0  # only the sum matters, and 0.85 is nearer to 1


def test_the_relaxation_is_that_of_the_paper() -> None:
    h = torch.linspace(0, 1, 11)
    assert torch.allclose(rectified_sigmoid(logits_of(h)), h, atol=1e-5)
    assert float(undecided(torch.tensor([0.0, 1.0]), 20.0)) == 0.0
    assert float(undecided(torch.tensor([0.5]), 2.0)) == 1.0


def test_the_output_of_a_network_is_nearer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 8)).eval()
    mix = torch.randn(4, 20)
    x, other = (torch.randn(256, 4) @ mix + 0.1 * torch.randn(256, 20) for _ in range(2))
    errors = []
    for rounding in (AdaRound(iterations=300), Nearest()):
        quantized = ptq(model, (x[:1],), [x], Scheme(weight_bits=3, ends=Bits(), rounding=rounding))
        with torch.no_grad():
            errors.append(float((quantized(other) - model(other)).square().mean()))
    assert errors[0] < 0.6 * errors[1]


@pytest.mark.parametrize("wrong", [{"images": 0}, {"iterations": 5}, {"pull": 0.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadArgument, match=r"at least|above 0"):
        AdaRound(**wrong)  # type: ignore[arg-type]
