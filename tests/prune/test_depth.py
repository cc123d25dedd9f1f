"""Depth pruning: the branch that matters least goes first, budgets are met, statistics follow."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gracile.errors import BadArgument, BudgetError, NonFiniteError
from gracile.graph import cost
from gracile.prune import Branches, Macs, Params, plan_branches, remove_branches

INPUTS = (torch.zeros(1, 4),)
DATA = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Residual branches of rising importance; the second is twice as wide inside."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 4)) for width in (4, 8, 4)
        )
        self.fc = nn.Linear(4, 3)
        with torch.no_grad():
            for size, branch in zip((0.05, 0.2, 2.0), self.branches, strict=True):
                branch[2].weight.mul_(size)
                branch[2].bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        for branch in self.branches:
            x = x + branch(x)
        return self.fc(x)


def without(model: Net, gone: set[int], x: Tensor) -> Tensor:
    for i, branch in enumerate(model.branches):
        x = x if i in gone else x + branch(x)
    return model.fc(x)


def divergence(model: Net, gone: set[int]) -> float:
    """By the formula, with loops."""
    with torch.no_grad():
        p, q = model(DATA).softmax(1), without(model, gone, DATA).softmax(1)
    rows = [
        sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(x, y, strict=True))
        for x, y in zip(p, q, strict=True)
    ]
    return sum(rows) / len(rows)


def test_the_least_divergence_goes_first_and_is_the_formula() -> None:
    model = Net().eval()
    plan = plan_branches(model, INPUTS, budget=Branches(count=2), calibration=DATA)
    assert [b.name for b in plan.removed] == ["branches.0", "branches.1"]
    assert plan.kept == ("branches.2",)
    assert plan.divergence[0] == pytest.approx(divergence(model, {0}), rel=1e-3)
    assert plan.divergence[1] == pytest.approx(divergence(model, {0, 1}), rel=1e-3)
    small = remove_branches(model, plan)
    torch.testing.assert_close(small(DATA), without(model, {0, 1}, DATA))
    assert len(list(model.parameters())) == 14  # the model itself is as it was


def test_the_cost_decides_between_likes() -> None:
    model = Net().eval()
    dear = {"branches.0": 1.0, "branches.1": 1e6, "branches.2": 1.0}
    plan = plan_branches(
        model, INPUTS, budget=Branches(count=1), calibration=DATA, cost_of=lambda b: dear[b.name]
    )
    assert [b.name for b in plan.removed] == ["branches.1"]


@pytest.mark.parametrize("budget", [Macs(fraction_kept=0.8), Params(fraction_kept=0.8)])
def test_shares_are_met_with_no_branch_too_many(budget: Macs | Params) -> None:
    model = Net().eval()
    plan = plan_branches(model, INPUTS, budget=budget, calibration=DATA)
    kind = "macs" if isinstance(budget, Macs) else "params"
    before = getattr(plan, f"{kind}_before")
    gone = [getattr(b, kind) for b in plan.removed]
    assert before - sum(gone) <= 0.8 * before < before - sum(gone[:-1])
    assert getattr(plan, f"{kind}_after") == before - sum(gone)


def test_outputs_that_are_no_logits_are_compared_by_their_squares() -> None:
    class Map(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv(x)

    model, images = Map().eval(), torch.randn(8, 2, 5, 5)
    plan = plan_branches(model, (images[:1],), budget=Branches(count=1), calibration=images)
    whole = model(images)
    wanted = (whole - images).square().sum() / whole.square().sum()
    assert plan.divergence[0] == pytest.approx(float(wanted.detach()), rel=1e-4)


def test_batch_norm_statistics_are_estimated_again() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift, self.norm, self.fc = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
            nn.init.constant_(self.lift.bias, 5.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.norm(x + self.lift(x)))

    model = Normed()
    plan = plan_branches(model, INPUTS, budget=Branches(count=1), calibration=DATA)
    small = remove_branches(model, plan, calibration=DATA)
    torch.testing.assert_close(small.norm.running_mean, DATA.mean(0), atol=1e-4, rtol=1e-3)
    untouched = remove_branches(model, plan)
    assert torch.equal(untouched.norm.running_mean, model.norm.running_mean)


def test_more_than_there_is_is_refused() -> None:
    with pytest.raises(BudgetError, match="3 residual branches that can go"):
        plan_branches(Net().eval(), INPUTS, budget=Branches(count=4), calibration=DATA)
    with pytest.raises(BudgetError):
        plan_branches(Net().eval(), INPUTS, budget=Macs(fraction_kept=0.01), calibration=DATA)
    with pytest.raises(BadArgument, match="at least 1"):
        Branches(count=0)


def test_weights_that_are_no_numbers_are_refused() -> None:
    model = Net().eval()
    model.fc.weight.data[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"fc\.weight"):
        plan_branches(model, INPUTS, budget=Branches(count=1), calibration=DATA)


class Outer(nn.Module):
    """The nested branch as a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block, self.fc = nn.Sequential(Inner(), Inner(), nn.Linear(4, 4)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x + self.block(x))


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc(x).tanh()


def test_what_lies_inside_a_branch_counts_once() -> None:
    model = Outer().eval()
    plan = plan_branches(model, INPUTS, budget=Macs(fraction_kept=0.3), calibration=DATA)
    small = remove_branches(model, plan)
    left = cost(small, INPUTS)
    assert (left.macs, left.params) == (plan.macs_after, plan.params_after)
    assert left.macs <= 0.3 * plan.macs_before
    assert all(torch.isfinite(small(DATA)).flatten())


def test_what_went_with_a_branch_cannot_go_again() -> None:
    with pytest.raises(BudgetError, match="3 residual branches"):
        plan_branches(Outer().eval(), INPUTS, budget=Branches(count=4), calibration=DATA)
    cheap = {"block": 1e9}
    with pytest.raises(BudgetError):  # the outer one goes first, and takes both others with it
        plan_branches(
            Outer().eval(), INPUTS, budget=Branches(count=2), calibration=DATA,
            cost_of=lambda b: cheap.get(b.name, 1.0),
        )  # fmt: skip
