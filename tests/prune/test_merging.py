"""Merging: exact for equal channels, refused where it cannot be, and the budget's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gracile import prune
from gracile.errors import BadArgument, BudgetError
from gracile.graph import capture, cost, trace
from gracile.records import PrunePlan, from_json, to_json
from gracile.testing import adds_up
from gracile.testing import net as kind_of
from gracile.testing.contract import fingerprint


def twin_(model: nn.Module, inputs, pairs=((0, 2), (1, 3))) -> None:
    """Make some units of every group equal."""
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for group in trace(capture(model, inputs)).groups:
            for slot in group.slots:
                if slot.role != "read":
                    rows = state[slot.param].movedim(slot.axis, 0)
                    for a, b in pairs:
                        if b < group.units:
                            rows[torch.from_numpy(slot.index[b])] = rows[
                                torch.from_numpy(slot.index[a])
                            ].clone()


def test_equal_channels_merge_exactly_whatever_lies_between(net, inputs, data) -> None:
    twin_(net, inputs)
    net.train()
    before, wanted = fingerprint(net), copy.deepcopy(net).eval()(data)
    merged = prune.merge(net, inputs, leave=())
    assert fingerprint(net) == before
    groups = trace(capture(net, inputs)).groups
    assert set(merged.clusters) == {g.name for g in groups}
    assert all(clusters == ((0, 2), (1, 3)) for clusters in merged.clusters.values())
    torch.testing.assert_close(merged.model.eval()(data), wanted, rtol=1e-4, atol=1e-5)
    adds_up(merged.plan, net, merged.model, inputs)
    assert merged.plan.macs_after < merged.plan.macs_before


@pytest.mark.parametrize("name", ["plain", "grouped", "attention", "concat", "residual"])
def test_groups_that_something_counts_or_normalises_are_left(name) -> None:
    model, inputs = kind_of(name)
    model.eval()
    twin_(model, inputs, pairs=((0, 1),))
    x = tuple(torch.randn(3, *i.shape[1:]) for i in inputs)
    wanted = model(*x)
    merged = prune.merge(model, inputs, leave=())
    torch.testing.assert_close(merged.model(*x), wanted, rtol=1e-4, atol=1e-4)
    whys = [s.why for s in merged.plan.skipped if "merging equal channels" in s.why]
    assert bool(whys) == (name == "attention")  # a norm of groups loses whole groups, which is exact


def test_near_channels_become_their_mean_and_readers_their_sum() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[3] = model[0].weight[0] + 1e-3
        model[0].bias[3] = model[0].bias[0]
    merged = prune.merge(model, (torch.zeros(1, 3),), tolerance=0.02, leave=())
    assert merged.clusters == {"0": ((0, 3),)}
    small = merged.model
    torch.testing.assert_close(small[0].weight[0], model[0].weight[[0, 3]].mean(0))
    torch.testing.assert_close(small[2].weight[:, 0], model[2].weight[:, [0, 3]].sum(1))
    torch.testing.assert_close(small[0].weight[1:], model[0].weight[1:3])
    assert "tolerance" not in merged.plan.criterion
    assert merged.plan.criterion == "merging within 0.02"


def test_without_anything_near_nothing_changes(residual, inputs) -> None:
    merged = prune.merge(residual, inputs)
    assert merged.clusters == {}
    assert merged.plan.slices == ()
    assert all(torch.equal(a, b) for a, b in zip(merged.model.state_dict().values(),
                                                 residual.state_dict().values(), strict=True))  # fmt: skip


def test_a_budget_is_met_and_a_refit_helps(residual, inputs, data) -> None:
    budget = prune.Macs(fraction_kept=0.6)
    merged = prune.merge(residual, inputs, budget=budget, round_to=2)
    assert cost(merged.model, inputs).macs == merged.plan.macs_after <= 0.6 * merged.plan.macs_before
    assert all(len(g.keep) % 2 == 0 for g in merged.plan.groups)
    assert from_json(PrunePlan, to_json(merged.plan)) == merged.plan
    refitted = prune.merge(residual, inputs, budget=budget, round_to=2, calibration=data)
    assert refitted.plan == merged.plan
    with torch.no_grad():
        wanted = residual(data)
        errors = [(m.model(data) - wanted).square().mean() for m in (merged, refitted)]
    assert errors[1] < errors[0]
    with pytest.raises(BudgetError):
        prune.merge(residual, inputs, budget=prune.Macs(fraction_kept=0.01))


def test_kept_numbers_are_rounded_up_without_a_budget(residual, inputs) -> None:
    twin_(residual, inputs)
    merged = prune.merge(residual, inputs, leave=(), round_to=4)
    assert all(len(g.keep) % 4 == 0 or len(g.keep) == g.units for g in merged.plan.groups)
    assert all(len(clusters) <= 2 for clusters in merged.clusters.values())


def test_bad_arguments_are_refused(residual, inputs) -> None:
    for bad in ({"tolerance": -1.0}, {"round_to": 0}):
        with pytest.raises(BadArgument, match="a tolerance of at least 0"):
            prune.merge(residual, inputs, **bad)


class OptionA(nn.Module):
    """Two trunks of one residual network: an identity shortcut, then one that strides and pads channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.one, self.two = nn.Conv2d(6, 7, 3, padding=1), nn.Conv2d(7, 6, 3, padding=1)
        self.down, self.up = nn.Conv2d(6, 7, 3, stride=2, padding=1), nn.Conv2d(7, 10, 3, padding=1)
        self.side, self.head = nn.Conv2d(10, 10, 1), nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = (x + self.two(self.one(x).relu())).relu()
        padded = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        x = (padded + self.up(self.down(x).relu())).relu()
        x = (x + self.side(x)).relu()
        return self.head(x.mean((2, 3)))


def test_a_trunk_merges_only_where_every_branch_that_writes_it_agrees() -> None:
    torch.manual_seed(0)
    model, inputs = OptionA().eval(), (torch.zeros(1, 2, 8, 8),)
    trunk = next(g for g in trace(capture(model, inputs)).groups if g.name == "stem")
    assert {slot.param for slot in trunk.writers} == {
        f"{name}.{part}" for name in ("stem", "two", "up", "side") for part in ("weight",)
    }
    x = torch.randn(4, 2, 8, 8)
    with torch.no_grad():  # equal in the stem alone: one branch tells the two apart
        model.stem.weight[2], model.stem.bias[2] = model.stem.weight[0], model.stem.bias[0]
    assert prune.merge(model, inputs, leave=()).clusters == {}
    with torch.no_grad():
        model.two.weight[2], model.two.bias[2] = model.two.weight[0], model.two.bias[0]
        for conv in (model.up, model.side):  # the padded shortcut moves the trunk by two channels
            conv.weight[4], conv.bias[4] = conv.weight[2], conv.bias[2]
    merged = prune.merge(model, inputs, leave=())
    assert merged.clusters == {"stem": ((0, 2),)}
    assert merged.proof.passed
    assert merged.proof.effect > 1e-3
    assert merged.model.up.weight.shape == (9, 7, 3, 3)
    assert merged.model.side.weight.shape == (9, 9, 1, 1)
    torch.testing.assert_close(merged.model(x), model(x), rtol=1e-4, atol=1e-5)


def test_the_proof_of_near_channels_is_of_their_means(residual, inputs) -> None:
    merged = prune.merge(residual, inputs, budget=prune.Macs(fraction_kept=0.7))
    assert merged.proof.passed
    assert merged.proof.error < 1e-9
    assert merged.proof.effect > 1e-3
    assert "clusters" in merged.proof.detail
