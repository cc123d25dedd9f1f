"""Every technique that has a name keeps the contract, on tiny networks of every kind."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gracile import decompose, fold, joint, prune, quantize, surgery
from gracile.errors import CaptureError
from gracile.prune.budgets import Budget
from gracile.records import GroupPlan, PrunePlan
from gracile.testing import Outcome, Technique, TechniqueContract, adds_up, net
from gracile.testing.contract import Case, Inputs

BUDGETS: dict[str, Budget] = {
    "per_layer": prune.PerLayer(ratio=0.3),
    "global": prune.Global(ratio=0.3),
    "macs": prune.Macs(fraction_kept=0.6),
    "params": prune.Params(fraction_kept=0.6),
}
SCHEMES = {
    name: quantize.Scheme(activation_range=name, weight_range="mse" if name == "cross_entropy" else name)
    for name in quantize.RANGES
} | {
    "per_tensor": quantize.Scheme(weight_granularity=quantize.PerTensor()),
    "per_group": quantize.Scheme(weight_granularity=quantize.PerGroup(size=3), weight_bits=4),
    "dynamic": quantize.Scheme(dynamic=True, rounding=quantize.Nearest()),
    "symmetric": quantize.Scheme(activation_symmetric=True),
    "w4a8": quantize.Scheme(weight_bits=4, rounding="least_squares"),
}
ROUNDINGS: dict[str, quantize.Rounding] = {
    "nearest": quantize.Nearest(),
    "stochastic": quantize.Stochastic(),
    "least_squares": quantize.LeastSquares(),
    "adaround": quantize.AdaRound(iterations=20),
    "blocks": quantize.Blocks(iterations=3, batch=8),
    "squant": quantize.SQuant(),
}
SCHEMES |= {
    f"rounding {name}": quantize.Scheme(weight_bits=4, activation_bits=4, rounding=kind)
    for name, kind in ROUNDINGS.items()
}
RESCUED = {
    name: quantize.Scheme(rescue=(rescue,), weight_bits=4, ends=quantize.Bits(), rounding="least_squares")
    for name, rescue in quantize.RESCUES.items()
}


def images(inputs: Inputs, count: int = 32) -> Tensor:
    """Unlabelled images of the inputs' shape."""
    return torch.randn(count, *inputs[0].shape[1:], generator=torch.Generator().manual_seed(7))


def prune_with(criterion: prune.Criterion, budget: Budget) -> Technique:
    """Plan, then carry out with every correction on."""

    def run(model: nn.Module, inputs: Inputs, seed: int) -> Outcome:
        data = images(inputs)
        plan = prune.plan(
            model, inputs, criterion=criterion, budget=budget, calibration=data, seed=seed, leave=("last",)
        )
        return Outcome(model=prune.apply(model, plan, inputs=inputs, calibration=data), plan=plan)

    return run


def merging(model: nn.Module, inputs: Inputs, seed: int) -> Outcome:
    """Merge the nearest channels until a budget is met."""
    merged = prune.merge(model, inputs, budget=BUDGETS["macs"], leave=("last",), seed=seed)
    return Outcome(model=merged.model, plan=merged.plan)


def widening(model: nn.Module, inputs: Inputs, seed: int) -> Outcome:
    """Half as many channels again."""
    found = surgery.widen(model, inputs, factor=1.5, seed=seed)
    return Outcome(model=found.model, plan=found.plan)


def mask_with(granularity: prune.Granularity, criterion: prune.EntryCriterion) -> Technique:
    """Plan masks and write the zeros."""

    def run(model: nn.Module, inputs: Inputs, seed: int) -> Outcome:
        data = images(inputs, 8)
        gradients = prune.mean_gradients(model, [(data, torch.arange(8) % 2)])
        plan = prune.mask_plan(
            model, inputs, granularity=granularity, criterion=criterion, gradients=gradients, seed=seed
        )
        return Outcome(model=prune.apply_masks(model, plan), plan=plan)

    return run


def prune_trunk(trunk: prune.Trunk, carry: prune.Carry = "nearest") -> Technique:
    """Branch by branch, with every correction on."""

    def run(model: nn.Module, inputs: Inputs, seed: int) -> Outcome:
        budget = prune.PerLayer(ratio=0.4)
        plan = prune.plan(model, inputs, budget=budget, seed=seed, leave=("last",), trunk=trunk)
        small = prune.apply(model, plan, inputs=inputs, calibration=images(inputs), carry_constants=carry)
        return Outcome(model=small, plan=plan)

    return run


def less_is_more(model: nn.Module, inputs: Inputs, seed: int) -> Outcome:
    """Two reductions, as if no training came between."""
    small = copy.deepcopy(model)
    reducer = prune.LessIsMore(small, inputs, threshold=prune.Relative(ratio=0.4), every=1, seed=seed)
    for _ in range(2):
        reducer.step(small)
    return Outcome(model=small, plan=reducer.plan)


def folding(model: nn.Module, inputs: Inputs, seed: int) -> Outcome:
    """Fold whatever can be folded."""
    plan = fold.plan(model, inputs)
    return Outcome(model=fold.apply(model, plan), plan=plan)


def quantize_with(scheme: quantize.Scheme) -> Technique:
    """Fold, then quantize; the runtime may round an edge to the neighbouring step."""

    def run(model: nn.Module, inputs: Inputs, seed: int) -> Outcome:
        folded = fold.apply(model, fold.plan(model, inputs)).eval()
        quantized = quantize.ptq(folded, inputs, images(inputs).split(16), scheme)
        return Outcome(model=quantized, plan=quantized.plan, tolerance=0.05)

    return run


def bits_by_accuracy(model: nn.Module, inputs: Inputs, seed: int) -> Outcome:
    """Raise bits until the outputs are near."""
    folded = fold.apply(model, fold.plan(model, inputs)).eval()
    data = images(inputs)
    start = quantize.Scheme(weight_bits=2, rounding=quantize.Nearest())
    with torch.no_grad():
        wanted = folded(data)

    def near(found: nn.Module) -> float:
        with torch.no_grad():
            return 100 - 100 * float((found(data) - wanted).norm() / wanted.norm())

    table = quantize.sensitivity(folded, inputs, [data], start, bits=(8, 2), images=4)
    found = quantize.ptq_within(folded, inputs, [data], near, drop=10.0, start=start, sensitivity=table,
                                evaluations=4)  # fmt: skip
    return Outcome(model=found.model, plan=found.model.plan, tolerance=0.05)


def decompose_with(form: decompose.Form, *, data: bool = False) -> Technique:
    """Factor what keeps most of its energy at less cost."""

    def run(model: nn.Module, inputs: Inputs, seed: int) -> Outcome:
        known = images(inputs) if data else None
        plan = decompose.plan(
            model, inputs, budget=decompose.Energy(kept=0.3), forms=(form,), calibration=known, seed=seed
        )
        return Outcome(model=decompose.apply(model, plan, inputs=inputs, calibration=known), plan=plan)

    return run


def joining(model: nn.Module, inputs: Inputs, seed: int) -> Outcome:
    """Prune and factor, half of the saving each."""
    plan = joint.plan(
        model, inputs, budget=prune.Macs(fraction_kept=0.75), calibration=images(inputs), shares=(0.5,),
        forms=(decompose.SVD(),), leave=("last",), importance={}, seed=seed,
    )  # fmt: skip
    small = joint.apply(model, plan, inputs=inputs, calibration=images(inputs), seed=seed)
    return Outcome(model=small, plan=plan)


def share_with(bits: int, data: bool) -> Technique:
    """Give weights a few shared values."""

    def run(model: nn.Module, inputs: Inputs, seed: int) -> Outcome:
        calibration = images(inputs).split(16) if data else None
        how = quantize.Clustering(seed=seed, start="linear" if data else "random")
        shared, plan = quantize.codebook(model, inputs, bits, calibration=calibration, clustering=how)
        return Outcome(model=shared, plan=plan)

    return run


def without_data(scheme: quantize.Scheme) -> Technique:
    """Quantize the model as it is, norms and all."""

    def run(model: nn.Module, inputs: Inputs, seed: int) -> Outcome:
        quantized = quantize.ptq(model, inputs, None, scheme)
        return Outcome(model=quantized, plan=quantized.plan, tolerance=0.05)

    return run


TECHNIQUES: dict[str, Technique] = {
    **{f"criterion {name}": prune_with(kind(), BUDGETS["macs"]) for name, kind in prune.CRITERIA.items()},
    **{f"budget {name}": prune_with(prune.L1(), budget) for name, budget in BUDGETS.items()},
    "merge": merging,
    "widening": widening,
    **{f"granularity {n}": mask_with(kind, prune.EntryNorm()) for n, kind in prune.GRANULARITIES.items()},
    **{f"entries {n}": mask_with(prune.Element(), way) for n, way in prune.ENTRY_CRITERIA.items()},
    "less is more": less_is_more,
    "trunk zero": prune_trunk("zero"),
    "trunk selective": prune_trunk("selective"),
    "constants exact": prune_trunk("coupled", "exact"),
    "fold": folding,
    **{f"form {name}": decompose_with(form) for name, form in decompose.BY_NAME.items()},
    "form svd with data": decompose_with(decompose.SVD(), data=True),
    "joint": joining,
    "codebook": share_with(4, data=False),
    "codebook with images": share_with(2, data=True),
    **{f"scheme {name}": quantize_with(scheme) for name, scheme in SCHEMES.items()},
    "bits by accuracy": bits_by_accuracy,
    **{f"rescue {name}": quantize_with(scheme) for name, scheme in RESCUED.items()},
    "data free": without_data(quantize.Scheme(weight_bits=4)),
}
NETWORKS = {
    "criterion l1": ("residual", "concat", "grouped", "attention"),
    "criterion taylor": ("plain", "attention"),
    "merge": ("plain", "residual"),
    "less is more": ("residual", "concat", "grouped"),
    "trunk zero": ("residual",),
    "trunk selective": ("residual", "depthwise"),
    "constants exact": ("residual", "upsampling"),
    "codebook with images": ("residual", "depthwise"),
    "fold": ("residual", "concat", "depthwise", "upsampling", "sequence", "volume"),
    "form svd": ("residual", "concat", "attention", "sequence", "volume"),
    "form tucker": ("residual", "sequence"),
    "form svd with data": ("residual", "attention"),
    "joint": ("residual", "depthwise", "attention"),
    "data free": ("plain", "residual", "depthwise"),
    "scheme mse": ("residual", "concat", "depthwise"),
    "scheme rounding blocks": ("residual", "concat", "attention"),
}
"""One technique of each kind meets many networks, the others a plain one."""
PAIRS = [(name, network) for name in TECHNIQUES for network in NETWORKS.get(name, ("plain",))]


@cache
def made(name: str, network: str) -> Outcome:
    """The outcome of a technique, made once: most promises are about it and not about making it."""
    return TECHNIQUES[name](*net(network), 0)


@pytest.fixture(params=PAIRS, ids="-".join, scope="class")
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A technique's and a network's name."""
    names: tuple[str, str] = request.param
    return names


class TestEveryTechnique(TechniqueContract):
    """The contract, for all that the plain dictionaries name."""

    @pytest.fixture
    def technique(self, pair: tuple[str, str], request: pytest.FixtureRequest) -> Technique:
        """The first call gives the stored outcome, except where the call itself is judged."""
        stored = [] if "leaves_its_input" in request.node.name else [made(*pair)]

        def run(model: nn.Module, inputs: Inputs, seed: int) -> Outcome:
            return stored.pop() if stored else TECHNIQUES[pair[0]](model, inputs, seed)

        return run

    @pytest.fixture
    def case(self, pair: tuple[str, str]) -> Case:
        return net(pair[1])


def test_every_budget_and_range_has_an_example() -> None:
    assert set(BUDGETS) == set(prune.BUDGETS), "add an example of the new budget to BUDGETS"
    assert {type(budget) for budget in BUDGETS.values()} == set(prune.BUDGETS.values())
    assert set(SCHEMES) >= set(quantize.RANGES)
    assert set(ROUNDINGS) == set(quantize.ROUNDINGS)
    assert {f"rescue {name}" for name in quantize.RESCUES} <= set(TECHNIQUES)
    assert {f"criterion {name}" for name in prune.CRITERIA} <= set(TECHNIQUES)
    assert {f"granularity {name}" for name in prune.GRANULARITIES} <= set(TECHNIQUES)
    assert {f"entries {name}" for name in prune.ENTRY_CRITERIA} <= set(TECHNIQUES)


# The contract itself must be able to fail.


def broken(name: str) -> Technique:
    """Folding with one promise broken."""
    drift = iter(range(100))

    def run(model: nn.Module, inputs: Inputs, seed: int) -> Outcome:
        outcome = folding(model, inputs, seed)
        if name == "changes its argument":
            next(model.parameters()).data.add_(1.0)
        if name == "changes the mode":
            model.eval()
        if name == "random":
            next(outcome.model.parameters()).data.add_(float(next(drift)))
        if name == "untraceable":
            return Outcome(model=_Untraceable(outcome.model), plan=outcome.plan)
        if name == "lies":
            outcome.model.fc1.weight.data.mul_(3.0)
        return outcome

    return run


class _Untraceable(nn.Module):
    """Decides by the values it sees."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x) if x.sum().item() > 0 else self.inner(-x)
        return out


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("changes its argument", "test_leaves_its_input_model_as_it_was"),
        ("changes the mode", "test_leaves_its_input_model_as_it_was"),
        ("random", "test_is_deterministic_for_a_seed"),
        ("untraceable", "test_result_traces_and_still_works"),
        ("lies", "test_report_adds_up"),
    ],
)
def test_a_broken_promise_is_found(name: str, test: str) -> None:
    check = getattr(TechniqueContract(), test)
    check(folding, net("plain"))
    with pytest.raises((AssertionError, CaptureError)):
        check(broken(name), net("plain"))


def test_wrong_figures_in_a_plan_are_found() -> None:
    model, inputs = net("plain")
    outcome = prune_with(prune.L1(), prune.PerLayer(ratio=0.5))(model, inputs, 0)
    assert isinstance(outcome.plan, PrunePlan)
    adds_up(outcome.plan, model, outcome.model, inputs)
    wrong: list[dict[str, Any]] = [
        {"macs_after": outcome.plan.macs_after + 1},
        {"params_after": outcome.plan.params_after - 1},
        {"slices": outcome.plan.slices[1:]},
        {"groups": (GroupPlan(name="g", units=2, keep=(0, 0, 1)),)},
    ]
    for change in wrong:
        with pytest.raises(AssertionError):
            adds_up(replace(outcome.plan, **change), model, outcome.model, inputs)


def test_masks_that_are_not_those_of_the_model_are_found() -> None:
    model, inputs = net("plain")
    outcome = mask_with(prune.Element(), prune.EntryNorm())(model, inputs, 0)
    adds_up(outcome.plan, model, outcome.model, inputs)
    outcome.model.get_parameter("conv2.weight").data[0, 0] += 1.0
    with pytest.raises(AssertionError):
        adds_up(outcome.plan, model, outcome.model, inputs)
