"""Weights that are computed once, and modules that never run."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from gracile import fold
from gracile.errors import BadArgument
from gracile.records import ConstantWeight, FusePlan, from_json, to_json


class Standardised(nn.Conv2d):
    """A weight of mean 0 and variance 1, as in networks without batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Padding(Standardised):
    """It does more than convolve."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (1, 0, 1, 0)))


def check(model: nn.Module, x: Tensor) -> FusePlan:
    """The same outputs; the plan survives JSON, and a state loads into what it makes."""
    model.eval()
    before = copy.deepcopy(model.state_dict())
    plan = from_json(FusePlan, to_json(fold.plan_fusions(model, (x[:1],))))
    small = fold.apply_fusions(model, plan)
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-5)
        again = fold.apply_fusions(model, plan)
        again.load_state_dict(small.state_dict())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    return plan


@pytest.mark.parametrize("axes", [1, 2])
def test_computed_weights_become_parameters(axes: int) -> None:
    kinds = [(nn.Conv1d, nn.ConvTranspose1d), (nn.Conv2d, nn.ConvTranspose2d)][axes - 1]
    masked = prune.l1_unstructured(nn.Linear(6, 4), "weight", 0.5)
    model = nn.Sequential(
        weight_norm(kinds[0](3, 4, 3, stride=2, padding=1, groups=1)), nn.ReLU(),
        spectral_norm(kinds[1](4, 6, 2, stride=2, bias=False)), nn.ReLU(),
        nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), masked,
    )  # fmt: skip
    plan = check(model, torch.randn(2, 3, *[8] * axes))
    assert [constant.layer for constant in plan.constants] == ["0", "2", "7"]
    small = fold.apply_fusions(model, plan)
    assert [type(small[i]) for i in (0, 2, 7)] == [*kinds, nn.Linear]
    assert sorted(small.state_dict()) == ["0.bias", "0.weight", "2.weight", "7.bias", "7.weight"]
    assert int((small[7].weight == 0).sum()) == 12


def test_a_norm_behind_a_computed_weight_folds_afterwards() -> None:
    model = nn.Sequential(Standardised(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    x = torch.randn(2, 3, 6, 6)
    model.train()(x)
    plan = check(model, x)
    assert "computed" in fold.plan(model, (x[:1],)).skipped[0].why
    plain = fold.apply_fusions(model, plan)
    assert fold.plan(plain, (x[:1],)).norms == ("1",)


def test_a_layer_that_does_more_stays() -> None:
    assert not check(nn.Sequential(Padding(3, 4, 3), nn.ReLU()), torch.randn(2, 3, 6, 6)).constants


class Hyper(nn.Module):
    """A weight that depends on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight * x.mean(), self.conv.bias)


def test_a_weight_of_the_input_is_no_constant() -> None:
    assert check(Hyper(), torch.randn(2, 3, 6, 6)[:1]).constants == ()


class Auxiliary(nn.Module):
    """Parts for training alone, a part that is read without being run, a part that the code asks about."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.aux = nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8))
        self.read = nn.Linear(4, 4)
        self.asked = nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x).mean((2, 3))
        if self.training:
            return self.aux(x[..., None, None]).mean()
        return F.linear(x, self.read.weight.detach()).tanh() * self.asked.out_features


def test_what_never_runs_goes() -> None:
    model = Auxiliary()
    plan = check(model, torch.randn(2, 3, 6, 6))
    assert plan.dead == ("aux",)
    assert [(s.where, s.why) for s in plan.skipped] == [("asked", "the model's own code needs it")]
    assert isinstance(fold.apply_fusions(model, plan).aux, nn.Identity)


@pytest.mark.parametrize(
    "plan",
    [
        FusePlan(fusions=(), dead=("7",)),
        FusePlan(fusions=(), constants=(ConstantWeight(layer="7", shape=(1, 2)),)),
        FusePlan(fusions=(), constants=(ConstantWeight(layer="1", shape=(1, 2)),)),
    ],
)
def test_a_plan_of_another_model_is_refused(plan: FusePlan) -> None:
    with pytest.raises(BadArgument, match="Make the plan anew"):
        fold.apply_fusions(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), plan)
