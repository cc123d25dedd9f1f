"""Branches of a residual trunk: coupled, silenced, or with channels of their own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from gracile import fold, prune, surgery
from gracile.errors import BadArgument
from gracile.graph import capture, trace
from gracile.nn import parts_of
from gracile.prune import trunk_cuts
from gracile.records import from_json, to_json

CHOICES = ["coupled", "zero", "selective"]


class PreActivation(nn.Module):
    """Blocks that end in a bare convolution, and readers behind a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.bn1, self.conv1 = nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.bn3, self.conv3 = nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.bn4, self.conv4 = nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv2(self.bn2(self.conv1(self.bn1(x).relu())).relu())
        x = x + self.conv4(self.bn4(self.conv3(self.bn3(x).relu())).relu())
        return self.head(x.mean((2, 3)))


def cuts(net: nn.Module, inputs, choice) -> set[tuple[str, str, str]]:
    return {(c.kind, c.layer, c.module) for c in trunk_cuts(net, capture(net, inputs), choice)}


def planned(net: nn.Module, inputs, choice, ratio: float = 0.5):
    return prune.plan(net, inputs, budget=prune.PerLayer(ratio=ratio), leave=("first", "last"), trunk=choice)


def test_ends_and_readers_are_found(residual, inputs) -> None:
    assert cuts(residual, inputs, "coupled") == set()
    ends = {("conv2", "norm2"), ("conv4", "norm4"), ("down", "norm5")}
    assert cuts(residual, inputs, "zero") == {("mask", *e) for e in ends}
    readers = {("gather", "conv3", "conv3"), ("gather", "down", "down")}
    assert cuts(residual, inputs, "selective") == {("scatter", *e) for e in ends} | readers
    only = cuts(residual, inputs, {"conv4": "selective", "conv*": "zero"})
    assert only == {("scatter", "conv4", "norm4"), ("mask", "conv2", "norm2")}


def test_pre_activation_blocks(inputs) -> None:
    found = cuts(PreActivation().eval(), inputs, "selective")
    ends = {("scatter", c, c) for c in ("conv2", "conv4")}
    assert found == ends | {("gather", "conv3", "conv3")}


@pytest.mark.parametrize("choice", ["zero", "selective"])
@pytest.mark.parametrize("kind", ["residual", "pre-activation"])
def test_plans_are_proved_and_survive_json(kind, choice, residual, inputs, data) -> None:
    net = residual if kind == "residual" else PreActivation().eval()
    plan = planned(net, inputs, choice)
    proofs = surgery.verify(net, inputs, plan)
    assert all(p.passed for p in proofs)
    assert proofs[1].effect > 1e-3
    assert from_json(type(plan), to_json(plan)) == plan
    assert {r.kind for r in plan.rewires} == ({"mask"} if choice == "zero" else {"gather", "scatter"})
    small = surgery.apply(net, plan)
    count = [sum(p.numel() for p in m.parameters()) for m in (net, small)]
    assert count == [plan.params_before, plan.params_after]
    names = {n for n, _ in net.named_parameters()}
    assert {n for n, _ in small.named_parameters()} == names
    for choice in plan.rewires:
        module = small.get_submodule(choice.module)
        assert type(module) is type(net.get_submodule(choice.module))
        assert set(parts_of(module)) >= {choice.kind}


def test_zero_silences_and_narrows_no_branch(residual, inputs, data) -> None:
    plan = planned(residual, inputs, {"conv2": "zero"})
    small = surgery.apply(residual, plan)
    assert small.conv2.weight.shape[0] == 6
    out = small.norm2(small.conv2(torch.randn(1, small.conv2.in_channels, 4, 4)))
    (mask,) = [r for r in plan.rewires if r.layer == "conv2"]
    gone = [i for i in range(6) if i not in mask.keep]
    assert out[:, gone].abs().max() == 0 < out[:, list(mask.keep)].abs().min()


def test_branches_equal_the_original_without_their_channels(residual, inputs, data) -> None:
    plan = planned(residual, inputs, "selective")
    small, zeroed = surgery.apply(residual, plan), copy.deepcopy(residual)
    found = trace(capture(residual, inputs))
    with torch.no_grad():
        for r in plan.rewires:
            gone = [i for i in range(r.size) if i not in r.keep]
            if r.kind == "gather":
                zeroed.get_submodule(r.layer).weight[:, gone] = 0
            else:
                zeroed.get_submodule(r.module).weight[gone] = 0
                zeroed.get_submodule(r.module).bias[gone] = 0
        for g in plan.groups:
            if g.name in ("conv1", "conv3"):
                for slot in found.group(g.name).readers:
                    dict(zeroed.named_parameters())[slot.param][:, list(g.removed)] = 0
        torch.testing.assert_close(small(data), zeroed(data), rtol=1e-4, atol=1e-5)
        folded = fold.apply(small, fold.plan(small, inputs))
        torch.testing.assert_close(folded(data), small(data), rtol=1e-4, atol=1e-5)
    assert len(fold.plan(small, inputs).pairs) == len(fold.plan(residual, inputs).pairs)


def test_constants_of_branches_are_carried_exactly(residual, inputs, data) -> None:
    plan = planned(residual, inputs, {"conv2": "selective", "conv4": "selective", "down": "selective"})
    ends = [r for r in plan.rewires if r.kind == "scatter"]
    with torch.no_grad():
        for r in ends:
            gone = [i for i in range(r.size) if i not in r.keep]
            residual.get_submodule(r.layer).weight[gone] = 0
        for g in plan.groups:
            if g.name in ("conv1", "conv3"):
                residual.get_submodule(g.name).weight[list(g.removed)] = 0
        for r in plan.rewires:
            if r.kind == "gather":
                residual.get_submodule(r.layer).weight[:, [i for i in range(r.size) if i not in r.keep]] = 0
        small = prune.apply(residual, plan, inputs=inputs, carry_constants="exact")
        torch.testing.assert_close(small(data), residual(data), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(surgery.apply(residual, plan)(data), residual(data), atol=1e-3)
    fresh = surgery.apply(residual, surgery.with_parts(plan, small))
    fresh.load_state_dict(small.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(fresh(data), small(data))


def test_a_refit_comes_closer_and_a_second_plan_goes_further(residual, inputs, data) -> None:
    plan = planned(residual, inputs, "selective", 0.34)
    with torch.no_grad():
        wanted = residual(data)
        plain = (surgery.apply(residual, plan)(data) - wanted).square().mean()
        small = prune.apply(residual, plan, inputs=inputs, calibration=data)
        assert (small(data) - wanted).square().mean() < 0.5 * plain
    again = planned(small, inputs, "selective")
    assert {r.kind for r in again.rewires} == {"gather", "scatter"}
    assert all(p.passed for p in surgery.verify(small, inputs, again))
    least = surgery.apply(small, again)
    scatter = parts_of(least.norm2)["scatter"]
    assert scatter.table.numel() == 6
    assert scatter.kept == least.conv2.out_channels < small.conv2.out_channels


def test_an_optimizer_and_an_average_follow(residual, inputs, data) -> None:
    optimizer = torch.optim.SGD(residual.parameters(), lr=0.1, momentum=0.9)
    ema = torch.optim.swa_utils.AveragedModel(residual, use_buffers=True)
    residual(data).square().mean().backward()
    optimizer.step()
    surgery.apply_(residual, planned(residual, inputs, "selective"), optimizer, ema)
    optimizer.zero_grad()
    residual.train()(data).square().mean().backward()
    optimizer.step()
    ema.update_parameters(residual)
    assert ema.module.eval()(data).shape == (96, 3)
    held = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert held == {id(p) for p in residual.parameters()}


def test_choices_that_cannot_be_are_refused(residual, inputs) -> None:
    with pytest.raises(BadArgument, match="trunk: wanted one of coupled, zero, selective"):
        planned(residual, inputs, "some")
    with pytest.raises(BadArgument, match="which fits none of 5"):
        planned(residual, inputs, {"layer7": "selective"})
