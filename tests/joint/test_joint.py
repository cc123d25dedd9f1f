"""Pruning and factoring together: budgets met, the best of the trials, proved, never below pruning alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from gracile import decompose, joint, prune
from gracile.errors import BadArgument, BudgetError
from gracile.graph import cost
from gracile.joint.applying import _Within
from gracile.observe import divergence, outputs
from gracile.prune.repair.reconstruct import reconstruct_
from gracile.records import Bytes, Factored, JointPlan, Macs, Params, PrunePlan, from_json, to_json
from gracile.testing.contract import fingerprint

SVD_ONLY = (decompose.SVD(),)

SLOWER = decompose.LayerTime(dense=1.0, factored=2.0, faster=False)


class Trained(nn.Module):
    """A residual network whose inner convolution has low rank and whose inner channels all matter."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.one = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.two = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)
        with torch.no_grad():
            for layer in (self.one, self.two):
                left = torch.linalg.qr(torch.randn(16, rank))[0]
                layer.weight.copy_(2 * (left @ torch.randn(rank, 144) / 12).reshape(16, 16, 3, 3))

        self.head.weight.data.mul_(20)  # outputs that differ

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.two(torch.relu(self.norm(self.one(x)))))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


@pytest.fixture
def images() -> Tensor:
    return torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def low_rank() -> nn.Module:
    torch.manual_seed(1)
    return Trained(rank=3).eval()


INPUTS = (torch.zeros(1, 3, 8, 8),)


def make(model: nn.Module, calibration: Tensor, **more) -> JointPlan:
    budget = more.pop("budget", Macs(fraction_kept=0.6))
    return joint.plan(model, INPUTS, budget=budget, calibration=calibration, forms=SVD_ONLY, **more)


def test_low_rank_is_factored_and_the_budget_met(low_rank: nn.Module, images: Tensor) -> None:
    before = fingerprint(low_rank)
    plan = make(low_rank, images, shares=(1.0, 0.0))
    assert fingerprint(low_rank) == before
    assert plan.by_pruning == 0.0
    assert {one.layer for one in plan.decompose.layers} <= {"one", "two"}
    small = joint.apply(low_rank, plan, inputs=INPUTS, calibration=images)
    assert cost(small, INPUTS).macs == plan.macs_after <= 0.6 * plan.macs_before
    assert cost(small, INPUTS).params == plan.params_after
    assert from_json(JointPlan, to_json(plan)) == plan
    assert "(chosen)" in str(plan)
    proofs = joint.prove(low_rank, small, plan, INPUTS)
    assert [proof.name for proof in proofs] == ["layers factored"]
    assert all(proof.passed for proof in proofs)
    torch.testing.assert_close(small(images), low_rank(images), rtol=1e-2, atol=1e-2)


def test_both_kinds_in_one_plan_are_proved(low_rank: nn.Module, images: Tensor) -> None:
    plan = make(low_rank, images, shares=(0.5,))
    assert plan.prune.slices
    assert plan.decompose.layers
    small = joint.apply(low_rank, plan, inputs=INPUTS, calibration=images)
    after = cost(small, INPUTS)
    assert (after.macs, after.params) == (plan.macs_after, plan.params_after)
    proofs = joint.prove(low_rank, small, plan, INPUTS)
    assert len(proofs) == 4
    assert all(proof.passed for proof in proofs)
    with torch.no_grad():  # a factor that is not what the dense weight stands for would show
        broken = copy.deepcopy(small)
        broken.get_submodule(plan.decompose.layers[0].layer)[0].stride = (2, 2)
    with pytest.raises(RuntimeError):
        joint.prove(low_rank, broken, plan, INPUTS)


def test_the_trial_with_the_nearest_outputs_wins_and_pruning_alone_wins_a_tie(images: Tensor) -> None:
    torch.manual_seed(0)
    model = Trained(rank=16).eval()
    plan = make(model, images, shares=(0.3, 1.0))
    assert [trial.by_pruning for trial in plan.trials] == [1.0, 0.3]
    known = {t.by_pruning: t.divergence for t in plan.trials if t.divergence is not None}
    assert known[plan.by_pruning] == min(known.values())
    alone = make(model, images, shares=(1.0,))
    assert alone.decompose.layers == ()
    wanted = prune.apply(
        model, alone.prune, inputs=INPUTS, calibration=images, seed=0
    )  # nothing but what `prune` does
    found = joint.apply(model, alone, inputs=INPUTS, calibration=images, seed=0)
    assert fingerprint(found) == fingerprint(wanted)


def test_held_out_divergence_is_that_of_the_applied_plan(low_rank: nn.Module, images: Tensor) -> None:
    plan = make(low_rank, images, shares=(0.5,), held_out=0.25)
    small = joint.apply(low_rank, plan, inputs=INPUTS, calibration=images[:48])
    held = (images[48:],)
    found = divergence(outputs(low_rank, held), outputs(small, held))
    assert plan.trials[0].divergence == pytest.approx(found, rel=1e-3)


@pytest.mark.parametrize("budget", [Params(fraction_kept=0.6), Bytes(at_most=6000, weight_bits=8)])
def test_other_budgets_are_met_biases_counted(low_rank: nn.Module, images: Tensor, budget) -> None:
    plan = make(low_rank, images, budget=budget, shares=(0.4,))
    after = cost(joint.apply(low_rank, plan, inputs=INPUTS, calibration=images), INPUTS)
    assert after.params == plan.params_after
    if isinstance(budget, Bytes):
        assert budget.of(after) <= budget.at_most
    else:
        assert after.params <= 0.6 * plan.params_before


def test_the_search_ends_when_two_in_a_row_are_worse(
    low_rank: nn.Module, images: Tensor, monkeypatch
) -> None:
    values = iter([1.0, 0.5, 0.7, 0.6, 0.1])
    monkeypatch.setattr("gracile.joint.planning._Tries.moved", lambda self, tried: next(values))
    seen: list[tuple[int, int]] = []
    plan = make(low_rank, images, shares=(1.0, 0.8, 0.6, 0.4, 0.2),
                on_try=lambda done, total: seen.append((done, total)))  # fmt: skip
    assert plan.by_pruning == 0.8
    assert len(plan.trials) == 4
    assert seen == [(0, 5), (1, 5), (2, 5), (3, 5)]


def test_what_cannot_be_met_is_recorded_or_raised(low_rank: nn.Module, images: Tensor) -> None:
    leave = ("stem", "one", "two", "head")
    with pytest.raises(BudgetError):
        make(low_rank, images, leave=leave)
    plan = make(low_rank, images, budget=Macs(fraction_kept=0.16), leave=("first", "last", "two"),
                shares=(1.0, 0.0))  # fmt: skip
    assert [trial.divergence is None for trial in plan.trials] == [False, True]
    assert "the least" in plan.trials[1].why


def test_patterns_leave_layers_alone(low_rank: nn.Module, images: Tensor) -> None:
    plan = make(low_rank, images, budget=Macs(fraction_kept=0.8), leave=("o*", "head"), shares=(0.0,))
    assert {one.layer for one in plan.decompose.layers} == {"two"}
    assert any(skip.where == "one" and "left alone" in skip.why for skip in plan.decompose.skipped)


def test_a_layer_that_is_not_faster_stays_dense(low_rank: nn.Module, images: Tensor) -> None:
    with pytest.raises(BudgetError):
        make(low_rank, images, shares=(0.0,), timer=lambda *one: SLOWER)
    plan = make(low_rank, images, shares=(1.0, 0.0), timer=lambda *one: SLOWER)
    assert plan.by_pruning == 1.0


def test_layers_that_cannot_be_fitted_are_factored_all_the_same() -> None:
    """A layer that runs twice belongs to two fits, so it is factored after them."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.twice, self.head = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.twice(torch.relu(self.twice(torch.relu(self.first(x))))))
            out: Tensor = self.head(x)
            return out

    torch.manual_seed(0)
    model, inputs, data = Twice().eval(), (torch.zeros(1, 6),), torch.randn(64, 6)
    plan = joint.plan(model, inputs, budget=Macs(fraction_kept=0.8), calibration=data, forms=SVD_ONLY,
                      shares=(0.0,))  # fmt: skip
    assert [one.layer for one in plan.decompose.layers] == ["twice"]
    small = joint.apply(model, plan, inputs=inputs, calibration=data)
    assert cost(small, inputs).macs == plan.macs_after
    assert all(proof.passed for proof in joint.prove(model, small, plan, inputs))


def test_factors_within_a_fit_are_the_best_of_their_rank_for_weighed_outputs() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(6, 8).double(), torch.randn(200, 8).double() @ torch.randn(8, 8).double()
    weighs = torch.rand(6).double() + 0.1
    one = Factored(layer="a", form="svd", ranks=(3,), error=0.0, macs_before=0, macs_after=0,
                   params_before=0, params_after=0)  # fmt: skip
    made: dict[str, tuple[Tensor, ...]] = {}
    found = _Within(one, made)(weight, x.T @ x, weighs)
    torch.testing.assert_close(decompose.SVD().dense(made["a"]), found)
    target = x @ weight.T * weighs.sqrt()
    left, values, right = torch.linalg.svd(target, full_matrices=False)
    best = (target - left[:, :3] * values[:3] @ right[:3]).square().sum()  # Eckart and Young
    error = ((x @ found.T - x @ weight.T) * weighs.sqrt()).square().sum()
    torch.testing.assert_close(error, best)


def test_layers_behind_a_projection_are_fitted_to_make_up_for_it(images: Tensor) -> None:
    torch.manual_seed(0)
    model = Trained(rank=16).eval()
    cut = {"one": lambda w, moments, weighs: torch.cat([w[:8], torch.zeros_like(w[8:])])}
    small, plain = copy.deepcopy(model), copy.deepcopy(model)
    empty = PrunePlan(groups=(), slices=())
    records = reconstruct_(small, model, empty, images, project=cut)
    assert [record.layer for record in records] == ["one", "two", "head"]
    assert not small.one.weight[8:].any()
    with torch.no_grad():
        plain.one.weight[8:] = 0
        errors = [(m(images) - model(images)).square().mean() for m in (small, plain)]
    assert errors[0] < 0.5 * errors[1]
    assert reconstruct_(copy.deepcopy(model), model, empty, images) == ()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"shares": ()}, "at least one part"),
        ({"shares": (1.5,)}, "at least one part"),
        ({"held_out": 1.0}, "held_out"),
        ({"images": 0}, "images"),
    ],
)
def test_bad_arguments_are_refused(low_rank: nn.Module, images: Tensor, more, words: str) -> None:
    with pytest.raises(BadArgument, match=words):
        make(low_rank, images, **more)


def test_too_few_inputs_are_refused(low_rank: nn.Module, images: Tensor) -> None:
    with pytest.raises(BadArgument, match="at least 8"):
        make(low_rank, images[:4])


def test_a_bare_layer_may_be_the_whole_model() -> None:
    torch.manual_seed(0)
    layer, images = nn.Linear(32, 32), torch.randn(128, 32)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(32, 4) @ torch.randn(4, 32) / 4)
    found = joint.plan(
        layer, (images[:1],), budget=Macs(fraction_kept=0.4), calibration=images, leave=(), shares=(0.0,)
    )
    small = joint.apply(layer, found, inputs=(images[:1],), calibration=images)
    assert [type(part).__name__ for part in small] == ["Linear", "Linear"]
    with torch.no_grad():
        assert torch.allclose(small(images), layer(images), atol=1e-4)
