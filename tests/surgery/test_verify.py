"""The proofs pass on right plans and fail on wrong ones."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from gracile.errors import ProofError
from gracile.graph import capture, trace
from gracile.records import GroupPlan, PrunePlan
from gracile.surgery import require, resolve, verify
from gracile.surgery.verify import Stage, difference
from gracile.testing.nets import NETS, net


def right_plan(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...], PrunePlan]:
    model, inputs = net(name)
    found = trace(capture(model, inputs))
    removed = {g.name: [i for i in range(g.units) if i % 3 != 1] for g in found.groups}
    done = resolve(model, inputs, found, removed)
    assert not done.skipped
    groups = tuple(
        GroupPlan(name=g.name, units=g.units, keep=tuple(i for i in range(g.units) if i % 3 == 1))
        for g in found.groups
    )
    return model, inputs, PrunePlan(groups=groups, slices=done.slices, attributes=done.attributes)


@pytest.mark.parametrize("name", NETS)
def test_right_plans_pass_and_could_have_failed(name: str) -> None:
    model, inputs, plan = right_plan(name)
    before = copy.deepcopy(model.state_dict())
    permuted, zeroed, kept = verify(model, inputs, plan)
    assert (permuted.passed, zeroed.passed, kept.passed) == (True, True, True)
    assert permuted.effect > 1e-3
    assert zeroed.effect > 1e-3
    assert kept.error == 0
    require((permuted, zeroed, kept))
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())


@pytest.mark.parametrize("name", ["plain", "residual", "depthwise", "attention", "upsampling"])
def test_one_wrong_index_is_found(name: str) -> None:
    model, inputs, plan = right_plan(name)
    target = next(i for i, s in enumerate(plan.slices) if s.axis == 0 and s.param.endswith("weight"))
    piece = plan.slices[target]
    gone = next(i for i in range(piece.size) if i not in piece.keep)
    keep = tuple(sorted({*piece.keep[1:], gone}))
    wrong = replace(
        plan, slices=(*plan.slices[:target], replace(piece, keep=keep), *plan.slices[target + 1 :])
    )
    proofs = verify(model, inputs, wrong)
    assert not proofs[1].passed
    with pytest.raises(ProofError, match="zero then remove"):
        require(proofs)


def test_a_wrong_grouping_fails_the_permutation() -> None:
    model, inputs = net("residual")
    groups = list(trace(capture(model, inputs)).groups)
    shifted = groups[0].slots[0]
    wrong = replace(shifted, index=(shifted.index + 1) % groups[0].units)
    groups[0] = replace(groups[0], slots=(wrong, *groups[0].slots[1:]))
    assert not Stage(model, inputs, 0).permutation(groups).passed
    assert Stage(model, inputs, 0).permutation(groups[1:]).passed


def test_fresh_normalisations_do_not_hide_errors() -> None:
    model, inputs = net("residual")
    with torch.no_grad():
        model.bn2.weight.zero_()  # the block adds nothing: its channels cannot matter on the model itself
        model.bn4.weight.zero_()
        model.bn2.bias.zero_()
        model.bn4.bias.zero_()
    found = trace(capture(model, inputs))
    removed = {"conv1": [0, 1, 2]}
    groups = (GroupPlan(name="conv1", units=8, keep=(3, 4, 5, 6, 7)),)
    proof = verify(model, inputs, PrunePlan(groups=groups, slices=found.slices(removed)))[1]
    assert proof.passed
    assert proof.effect > 1e-4


def test_code_that_makes_float32_tensors_is_proved_in_float32() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.b(torch.relu(self.a(x)) @ torch.eye(8))
            return out

    model, inputs = Mixed(), (torch.randn(1, 4),)
    found = trace(capture(model, inputs))
    plan = PrunePlan(groups=(), slices=())
    assert not found.groups  # a constant matrix mixes the channels
    proofs = verify(model, inputs, plan, provenance=found)
    assert all(p.passed for p in proofs)
    assert all("float32" in p.detail for p in proofs)


def test_outputs_of_any_kind_are_compared() -> None:
    yes, no, none = torch.tensor([True]), torch.tensor([False]), torch.zeros(0)
    assert difference([yes, none], [yes, none]) == 0
    assert difference([yes], [no]) == 1
    assert difference([torch.zeros(1)], [none]) == float("inf")
