"""Folding batch norm: exact, found by data flow, and honest about what it leaves."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gracile import fold
from gracile.errors import BadArgument
from gracile.fold.batch_norm import fold_
from gracile.nn import BorderMap, MaskChannels, ScatterChannels, attach_, parts_of
from gracile.records import FoldPair, FoldPlan, from_json, to_json


def lively(norm: nn.Module) -> nn.Module:
    """Statistics and parameters that show every mistake."""
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.3, 3.0)
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm


def check(net: nn.Module, x: Tensor, pairs: list[tuple[str, str]]) -> nn.Module:
    net.eval()
    before = copy.deepcopy(net.state_dict())
    plan = fold.plan(net, (x[:1],))
    assert [(p.layer, p.norm) for p in plan.pairs] == pairs
    folded = fold.apply(net, plan)
    torch.testing.assert_close(folded(x), net(x), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(a, before[k]) for k, a in net.state_dict().items())
    return folded


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (lambda b: nn.Conv1d(4, 6, 3, bias=b), nn.BatchNorm1d, (4, 9)),
        (lambda b: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=b), nn.BatchNorm2d, (4, 7, 7)),
        (lambda b: nn.Conv3d(4, 6, 2, bias=b), nn.BatchNorm3d, (4, 4, 4, 4)),
        (lambda b: nn.ConvTranspose1d(4, 6, 3, stride=2, bias=b), nn.BatchNorm1d, (4, 5)),
        (lambda b: nn.ConvTranspose2d(4, 6, 3, groups=2, bias=b), nn.BatchNorm2d, (4, 5, 5)),
        (lambda b: nn.ConvTranspose3d(4, 6, 2, bias=b), nn.BatchNorm3d, (4, 3, 3, 3)),
        (lambda b: nn.Linear(4, 6, bias=b), nn.BatchNorm1d, (4,)),
    ],
)
def test_same_outputs_for_every_kind_of_layer(layer, norm, shape, bias) -> None:
    net = nn.Sequential(layer(bias), lively(norm(6, eps=0.3, momentum=None)), nn.ReLU())
    folded = check(net, torch.randn(3, *shape), [("0", "1")])
    assert isinstance(folded[1], nn.Identity)
    assert folded[0].bias is not None


@settings(max_examples=25)
@given(
    gamma=st.floats(-4, 4), beta=st.floats(-4, 4), mean=st.floats(-4, 4), var=st.floats(1e-4, 1e4),
    eps=st.floats(1e-6, 1.0), bias=st.floats(-4, 4), weight=st.floats(-4, 4), x=st.floats(-4, 4),
)  # fmt: skip
def test_numbers_follow_the_formula(gamma, beta, mean, var, eps, bias, weight, x) -> None:
    layer, norm = nn.Linear(1, 1).double(), nn.BatchNorm1d(1, eps=eps).double().eval()
    tensors = (layer.weight, layer.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    for tensor, number in zip(tensors, (weight, bias, gamma, beta, mean, var), strict=True):
        tensor.data.fill_(number)
    fold_(layer, norm)
    wanted = gamma * (weight * x + bias - mean) / (var + eps) ** 0.5 + beta
    found = layer(torch.tensor([[x]], dtype=torch.float64)).item()
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def test_norm_without_parameters() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 1), lively(nn.BatchNorm2d(3, affine=False)))
    check(net, torch.randn(2, 2, 4, 4), [("0", "1")])


class Backwards(nn.Module):
    """Registers its norms before its layers, and in another order than they run."""

    def __init__(self) -> None:
        super().__init__()
        self.late, self.early = lively(nn.BatchNorm2d(3)), lively(nn.BatchNorm2d(3))
        self.second, self.first = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.late(self.second(self.early(self.first(x)).relu()))


def test_pairs_are_found_by_data_flow_not_by_registration() -> None:
    check(Backwards(), torch.randn(2, 3, 8, 8), [("first", "early"), ("second", "late")])


class PreActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = lively(nn.BatchNorm2d(3)), lively(nn.BatchNorm2d(3))
        self.conv1, self.conv2 = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.conv1(self.norm1(x).relu())
        return x + self.conv2(self.norm2(x).relu())


def test_nothing_is_folded_before_an_activation_net() -> None:
    net = PreActivation().eval()
    plan = fold.plan(net, (torch.zeros(1, 3, 6, 6),))
    assert plan.pairs == ()
    assert {s.where: s.why for s in plan.skipped} == {
        "norm1": "before it stands the network's input, behind it relu",
        "norm2": "before it stands the network's input, behind it relu",
    }
    assert all("test_batch_norm.py" in s.source for s in plan.skipped)


class Leaks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), lively(nn.BatchNorm2d(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y + self.norm(y)


class Twice(nn.Module):
    def __init__(self, share: str) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.n, self.m = lively(nn.BatchNorm2d(3)), lively(nn.BatchNorm2d(3))
        if share == "layer":
            self.b = self.a
        else:
            self.m = self.n

    def forward(self, x: Tensor) -> Tensor:
        return self.m(self.b(self.n(self.a(x)).relu()))


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (Leaks(), "a sum with what it normalises"),
        (Twice("layer"), "runs more than once, or shares its parameters"),
        (Twice("norm"), "it runs more than once"),
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)), "by the batch"),
        (
            nn.Sequential(
                nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1)), lively(nn.BatchNorm2d(3))
            ),
            "are computed",
        ),
    ],
)
def test_what_cannot_be_folded_is_recorded_with_the_reason(net: nn.Module, why: str) -> None:
    plan = fold.plan(net.eval(), (torch.zeros(1, 3, 4, 4),))
    assert plan.pairs == ()
    assert plan.skipped
    assert all(why in s.why for s in plan.skipped)


class NormAct(nn.BatchNorm2d):
    """As timm has them: the activation lives in the norm."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class NormThenDouble(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_an_activation_inside_the_norm_stays() -> None:
    check(nn.Sequential(nn.Conv2d(3, 4, 3), lively(NormAct(4))), torch.randn(2, 3, 6, 6), [("0", "1")])


def test_a_norm_that_does_more_is_found_by_trying() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), lively(NormThenDouble(4)), nn.Conv2d(4, 4, 1), lively(nn.BatchNorm2d(4))
    )
    plan = fold.plan(net.eval(), (torch.zeros(1, 3, 4, 4),))
    assert [p.norm for p in plan.pairs] == ["3"]
    assert [(s.where, s.why) for s in plan.skipped] == [("1", "folding it changes the model's outputs")]


class TwoNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = lively(nn.BatchNorm2d(4))
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), self.norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def test_a_norm_registered_under_two_names_is_replaced_under_both() -> None:
    net = TwoNames().eval()
    plan = fold.plan(net, (torch.zeros(1, 3, 4, 4),))
    folded = fold.apply(net, plan)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(folded(x), net(x))


def test_structure_takes_a_folded_checkpoint() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), lively(nn.BatchNorm2d(4)), nn.ReLU()).eval()
    plan = from_json(FoldPlan, to_json(fold.plan(net, (torch.zeros(1, 3, 5, 5),))))
    folded = fold.apply(net, plan)
    fresh = fold.apply_structure(
        nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()), plan
    )
    fresh.load_state_dict(folded.state_dict())
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(fresh(x), folded(x))


@pytest.mark.parametrize("pair", [FoldPair(layer="0", norm="7"), FoldPair(layer="1", norm="0")])
def test_a_plan_for_another_model_is_refused(pair: FoldPair) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    with pytest.raises(BadArgument, match="Make the plan anew"):
        fold.apply(net, FoldPlan(pairs=(pair,)))


def test_the_folded_net_trains_on() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), lively(nn.BatchNorm2d(4)))
    folded = fold.apply(net.eval(), fold.plan(net, (torch.zeros(1, 3, 4, 4),)))
    folded(torch.randn(2, 3, 4, 4)).sum().backward()
    assert folded[0].bias.grad is not None
    assert folded[0].weight.grad is not None


def test_parts_on_a_norm_stay_and_masks_go_into_the_weights() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).eval()
    nn.init.normal_(net[1].bias)
    attach_(net[1], "border", BorderMap(torch.randn(3, 2, 3), ((1, 0), (1, 1))))
    attach_(net[1], "mask", MaskChannels(torch.tensor([1.0, 0.0, 1.0])))
    attach_(net[1], "scatter", ScatterChannels(torch.tensor([4, 0, 1]), 5))
    x = torch.randn(2, 2, 4, 4)
    inputs = (x[:1],)
    with torch.no_grad():
        wanted = net(x)
        found = fold.plan(net, inputs)
        folded = fold.apply(net, found)
        torch.testing.assert_close(folded(x), wanted)
    assert isinstance(folded[1], nn.Identity)
    assert set(parts_of(folded[1])) == {"border", "scatter"}
    assert fold.apply_structure(net, found).state_dict().keys() == folded.state_dict().keys()
    assert set(parts_of(net[1])) == {"border", "mask", "scatter"}


class Around(nn.Module):
    """Foldable norms between two functions."""

    def __init__(self, before=lambda x: x, behind=lambda x: x) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False), lively(nn.BatchNorm2d(6)), nn.ReLU(),
            lively(nn.BatchNorm2d(6)), nn.Conv2d(6, 4, 3), lively(nn.BatchNorm2d(4)),
        )  # fmt: skip
        self.before, self.behind = before, behind

    def forward(self, x: Tensor):
        return self.behind(self.body(self.before(x)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rounding_of_another_type_is_no_change_of_the_outputs(dtype: torch.dtype) -> None:
    net, x = Around().eval().to(dtype), torch.randn(1, 3, 8, 8, dtype=dtype)
    plan = fold.plan(net, (x,))
    assert len(plan.norms) == 3
    assert fold.apply(net, plan)(x).dtype == dtype


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        (lambda x: x, lambda y: (y, y > 0)),
        (lambda x: x.log(), lambda y: y),
        (lambda x: x.sub_(0.5).div_(2), lambda y: {"logits": y}),
    ],
)
def test_folds_are_tried_on_ordinary_models(before, behind) -> None:
    x = torch.rand(1, 3, 8, 8) + 0.1
    kept = x.clone()
    assert len(fold.plan(Around(before, behind).eval(), (x,)).norms) == 3
    assert torch.equal(x, kept)


def test_a_norm_in_a_region_folds() -> None:
    class Region(Around):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return self.body(x)

    check(Region().eval(), torch.randn(2, 3, 8, 8), [("body.0", "body.1"), ("body.4", "body.5")])
