"""Plans: budgets from the user's call to the parameters that are left."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gracile import prune, surgery
from gracile.errors import BadArgument, BudgetError, NonFiniteError
from gracile.graph import cost
from gracile.records import PrunePlan, from_json, to_json

ALL = [prune.Random(), prune.L1(), prune.L2(), prune.Reconstruction(), prune.Taylor()]


@pytest.mark.parametrize("criterion", ALL, ids=lambda c: type(c).__name__)
def test_every_criterion_meets_the_budget_on_every_kind_of_net(net, inputs, data, criterion) -> None:
    before = copy.deepcopy(net.state_dict())
    found = prune.plan(
        net, inputs, criterion=criterion, budget=prune.Macs(fraction_kept=0.6), leave=(), calibration=data
    )
    small = surgery.apply(net, found)
    counted = cost(small, inputs)
    assert (counted.macs, counted.params) == (found.macs_after, found.params_after)
    assert 0.4 * found.macs_before < found.macs_after <= 0.6 * found.macs_before
    assert all(p.passed for p in surgery.verify(net, inputs, found))
    assert all(torch.equal(t, before[k]) for k, t in net.state_dict().items())
    again = prune.plan(
        net, inputs, criterion=criterion, budget=prune.Macs(fraction_kept=0.6), leave=(), calibration=data
    )
    assert again == found


@pytest.mark.parametrize(
    "budget", [prune.PerLayer(ratio=0.5), prune.Global(ratio=0.4), prune.Params(fraction_kept=0.5)]
)
def test_every_budget_survives_json(residual, inputs, budget) -> None:
    found = prune.plan(residual, inputs, budget=budget)
    assert from_json(PrunePlan, to_json(found)) == found
    assert found.budget == str(budget)
    if isinstance(budget, prune.Params):
        assert found.params_after <= 0.5 * found.params_before


def test_first_and_last_are_left_and_recorded(residual, inputs) -> None:
    found = prune.plan(residual, inputs, budget=prune.PerLayer(ratio=0.5))
    why = {s.where: s.why for s in found.skipped}
    assert why["stem"] == "left alone: first (stem)"
    assert why["head"] == "is an output of the network"
    assert {g.name for g in found.groups} == {"conv1", "conv3", "conv4"}
    assert all(len(g.keep) == g.units / 2 for g in found.groups)


def test_kept_channels_are_a_multiple(residual, inputs) -> None:
    found = prune.plan(residual, inputs, budget=prune.Macs(fraction_kept=0.6), leave=(), round_to=4)
    assert all(len(g.keep) % 4 == 0 or len(g.keep) == g.units for g in found.groups)
    assert found.macs_after <= 0.6 * found.macs_before
    with pytest.raises(BadArgument, match="round_to: wanted at least 1"):
        prune.plan(residual, inputs, round_to=0)


def test_a_budget_that_cannot_be_met_names_one_that_can(residual, inputs) -> None:
    with pytest.raises(BudgetError) as caught:
        prune.plan(residual, inputs, budget=prune.Macs(fraction_kept=0.05))
    nearest = float(caught.value.do.split("=")[1].split(" ")[0])
    assert prune.plan(residual, inputs, budget=prune.Macs(fraction_kept=nearest)).macs_after


def test_weights_that_are_no_numbers_are_refused(residual, inputs) -> None:
    residual.conv3.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"conv3\.weight: wanted finite numbers, found 1 of 432"):
        prune.plan(residual, inputs)


class Stubborn(nn.Module):
    """A number in the code that no longer fits when ``a`` shrinks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a = nn.Linear(4, 6), nn.Linear(6, 8)
        self.b, self.c = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.a(x).reshape(-1, 8)
        return self.c(self.b(x).relu())


def test_a_group_that_the_users_code_forbids_is_left_whole_with_its_line() -> None:
    found = prune.plan(Stubborn(), (torch.zeros(1, 4),), budget=prune.PerLayer(ratio=0.5), leave=())
    assert "a" not in {g.name for g in found.groups}
    assert "b" in {g.name for g in found.groups}
    (skip,) = [s for s in found.skipped if s.where == "a"]
    assert "test_planning.py" in skip.source


def test_the_seed_chooses_random_channels(residual, inputs) -> None:
    plans = [
        prune.plan(residual, inputs, criterion=prune.Random(), budget=prune.PerLayer(ratio=0.5), seed=s)
        for s in (0, 0, 1)
    ]
    assert plans[0] == plans[1] != plans[2]


def test_scores_that_are_no_numbers_do_not_choose(plain, inputs) -> None:
    class Blind(prune.L1):
        def __call__(self, scene):
            return {name: np.full_like(found, np.nan) for name, found in super().__call__(scene).items()}

    with pytest.raises(
        NonFiniteError, match=r"body\.0: wanted scores that are numbers, found \d+ of \d+ NaN"
    ):
        prune.plan(plain, inputs, criterion=Blind(), leave=())


def test_batches_with_labels_are_no_calibration(plain, inputs, data) -> None:
    loader = DataLoader(TensorDataset(data, torch.zeros(len(data))), batch_size=16)
    with pytest.raises(BadArgument, match=r"wanted batches of 1 tensor, .*found a list of Tensor, Tensor"):
        prune.plan(plain, inputs, criterion=prune.Activation(), calibration=loader)


def test_masks_of_attention_may_hold_infinity(inputs) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)
            self.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.mask.softmax(1) @ self.b(self.a(x).relu())

    found = prune.plan(Masked().eval(), (torch.zeros(1, 3, 4),), budget=prune.PerLayer(ratio=0.5), leave=())
    assert [len(g.keep) for g in found.groups] == [4]


def test_constants_of_the_code_survive_whole_number_inputs() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.wide, self.out = nn.Embedding(5, 4), nn.Linear(4, 8), nn.Linear(8, 2)
            self.norm, self.half = nn.LayerNorm(8), torch.tensor(0.5)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.out(self.norm(self.wide(self.embed(tokens))).relu() * self.half)

    model, tokens = Scaled().eval(), torch.tensor([[1, 2, 3]])
    found = prune.plan(model, (tokens,), budget=prune.PerLayer(ratio=0.5), leave=())
    assert {g.name: len(g.keep) for g in found.groups if g.removed} == {"wide": 4}
