"""Ranks under a budget of measured time, with clocks that are known."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from gracile import decompose
from gracile.decompose import CP, LayerTime, Macs, Milliseconds
from gracile.decompose.forms.refine import output_error
from gracile.errors import BadArgument, BudgetError

INPUTS = (torch.zeros(1, 16),)


def weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.dim() > 1)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(16, 24), nn.Linear(24, 24), nn.Linear(24, 16)]
    for layer in layers:
        left, values, right = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
        layer.weight.data = left * (values * 0.6 ** torch.arange(len(values))) @ right
    return nn.Sequential(*itertools.chain(*zip(layers, [nn.ReLU()] * 3, strict=True))).eval()


def of(dense: float, factored: float) -> LayerTime:
    return LayerTime(dense=dense, factored=factored, faster=factored < dense)


def test_the_budget_is_met_in_time_and_times_are_recorded(model: nn.Module) -> None:
    asked: list[str] = []

    def timer(name: str, layer: nn.Module, small: nn.Module, shape: tuple[int, ...]) -> LayerTime:
        asked.append(name)
        drift = 1.0 + 0.1 * (asked.count(name) - 1)  # a machine that gets slower: ratios of the two count
        return of(drift * weights(layer) / 1000, drift * weights(small) / 1000)

    plan = decompose.plan(model, INPUTS, budget=Milliseconds(fraction_kept=0.6), timer=timer)
    assert plan.layers
    assert max(asked.count(name) for name in set(asked)) == decompose.timing.TIMED
    small = decompose.apply(model, plan)
    assert weights(small) <= 0.6 * weights(model)  # this clock goes by weights
    for one in plan.layers:
        ratio = one.milliseconds[1] / one.milliseconds[0]
        assert ratio == pytest.approx(one.params_after / one.params_before, rel=1e-3)


def test_layers_that_are_never_faster_stay_dense_and_the_budget_says_so(model: nn.Module) -> None:
    def timer(name: str, layer: nn.Module, small: nn.Module, shape: tuple[int, ...]) -> LayerTime:
        return of(1.0, 0.5) if name == "2" else of(1.0, 1.5)

    plan = decompose.plan(model, INPUTS, budget=Milliseconds(fraction_kept=0.9), timer=timer)
    assert [one.layer for one in plan.layers] == ["2"]
    why = {skip.where: skip.why for skip in plan.skipped}
    assert why["0"] == why["4"] == "factored it takes 1.5 ms instead of 1"
    with pytest.raises(BudgetError, match=r"at most 1\.5 of 3 milliseconds, found that 2\.5 is the least"):
        decompose.plan(model, INPUTS, budget=Milliseconds(fraction_kept=0.5), timer=timer)


@pytest.mark.parametrize("budget", [Milliseconds(fraction_kept=1.0), Macs(fraction_kept=1.0)], ids=repr)
def test_what_may_be_noise_is_not_faster(model: nn.Module, budget: Milliseconds | Macs) -> None:
    plan = decompose.plan(
        model, INPUTS, budget=budget, timer=lambda *one: LayerTime(dense=1.0, factored=0.9, faster=False)
    )
    assert plan.layers == ()
    whys = [skip.why for skip in plan.skipped]
    assert len(whys) == 3
    if isinstance(budget, Milliseconds):
        assert set(whys) == {
            "factored it takes 0.9 ms instead of 1, no more than the noise of the measurement"
        }


def test_a_budget_in_time_needs_a_clock(model: nn.Module) -> None:
    with pytest.raises(BadArgument, match="timer"):
        decompose.plan(model, INPUTS, budget=Milliseconds(fraction_kept=0.5))
    with pytest.raises(BadArgument, match="fraction_kept"):
        Milliseconds(fraction_kept=0.0)


def test_a_layer_of_exactly_low_rank_is_not_called_unimportant() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(16, 2) @ torch.randn(2, 16))
        model[2].weight.mul_(5)
    data = torch.randn(64, 16)
    importance = decompose.sensitivity(model, INPUTS, data, forms=(decompose.SVD(),))
    assert importance["0"] > 1e-2
    plan = decompose.plan(model, INPUTS, budget=Macs(fraction_kept=0.7), calibration=data,
                          forms=(decompose.SVD(),), importance=importance)  # fmt: skip
    (one,) = plan.layers
    assert one.layer == "0"
    assert one.ranks >= (2,)
    assert one.error < 1e-6


def test_biases_that_a_mean_needs_are_counted() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16, bias=False), nn.ReLU(), nn.Linear(16, 16, bias=False)).eval()
    data = torch.randn(64, 16)
    budget = decompose.Params(fraction_kept=0.8)
    plan = decompose.plan(model, INPUTS, budget=budget, calibration=data)
    small = decompose.apply(model, plan, inputs=INPUTS, calibration=data)
    found = sum(p.numel() for p in small.parameters())
    assert found == plan.params_after <= 0.8 * plan.params_before


def test_cp_of_a_tensor_whose_best_factors_are_infinite_stays_small() -> None:
    """Of rank 3, but rank 2 comes as near as one likes by columns that cancel (de Silva and Lim, 2008)."""
    a, b = torch.eye(2, dtype=torch.float64)
    terms = [(a, a, b), (a, b, a), (b, a, a)]
    weight = sum(torch.einsum("i,j,k->ijk", *term) for term in terms)[..., None]
    found = CP().factor(weight, (2,))
    assert max(float(f.abs().max()) for f in found) < 5 * float(weight.norm())
    error = float(output_error(weight, CP().dense(found), None))
    assert error < 0.34  # two of the three terms; leading vectors alone would give one
