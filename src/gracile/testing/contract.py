"""What every technique promises, as tests that anyone can inherit.

A technique is a function from a model to an :class:`Outcome`. Inherit :class:`TechniqueContract` in a test
module of your own, give it a ``technique`` and a ``case`` fixture, and pytest runs the whole contract::

    class TestMyCriterion(TechniqueContract):
        @pytest.fixture(params=["residual", "concat"])
        def case(self, request):
            return net(request.param)

        @pytest.fixture
        def technique(self):
            return prune_with(MyCriterion())

This module does not import pytest, so that installing Gracile does not install it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gracile import export, graph
from gracile.measure.runtimes import ort_session
from gracile.records import (
    CodebookPlan,
    DecomposePlan,
    FoldPlan,
    JointPlan,
    MaskPlan,
    PrunePlan,
    QuantPlan,
    from_json,
    to_json,
)

Plan = PrunePlan | MaskPlan | FoldPlan | QuantPlan | DecomposePlan | CodebookPlan | JointPlan
Inputs = tuple[Tensor, ...]
Case = tuple[nn.Module, Inputs]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a technique made: the new model and the plan that it followed.

    ``tolerance`` is how far the deployed model may lie from ``model``, relative to its largest output:
    rounding in float, a few quantization steps where the output is rounded.
    """

    model: nn.Module
    plan: Plan
    tolerance: float = 1e-4


Technique = Callable[[nn.Module, Inputs, int], Outcome]
"""Model, example inputs and a seed to an outcome."""


class TechniqueContract:
    """The contract as tests; see the module's text for how to use it."""

    def test_leaves_its_input_model_as_it_was(self, technique: Technique, case: Case) -> None:
        """Parameters, buffers, structure, modes, gradients and hooks of the argument are untouched."""
        model, inputs = case
        model.train()
        before = fingerprint(model)
        output_before = copy.deepcopy(inputs)
        technique(model, inputs, 0)
        assert fingerprint(model) == before
        assert all(torch.equal(a, b) for a, b in zip(inputs, output_before, strict=True))

    def test_is_deterministic_for_a_seed(self, technique: Technique, case: Case) -> None:
        """The same seed gives the same plan and the same weights, whatever the global generator holds."""
        model, inputs = case
        torch.manual_seed(1)
        first = technique(model, inputs, 0)
        torch.manual_seed(2)
        second = technique(model, inputs, 0)
        assert first.plan == second.plan
        assert same_numbers(first.model, second.model)

    def test_result_traces_and_still_works(self, technique: Technique, case: Case) -> None:
        """``torch.export`` captures the result, and what it captured computes the same."""
        model, inputs = case
        result = technique(model, inputs, 0).model.eval()
        captured = graph.capture(result, inputs)
        with torch.no_grad():
            assert_close(captured.program.module()(*inputs), result(*inputs), tolerance=1e-5)

    def test_result_exports_and_runs_the_same(self, technique: Technique, case: Case, tmp_path: Path) -> None:
        """The ONNX file gives in ONNX Runtime what the model gives in PyTorch, at another batch size too."""
        model, inputs = case
        outcome = technique(model, inputs, 0)
        export.onnx(outcome.model, inputs, tmp_path / "model.onnx")
        session = ort_session(tmp_path / "model.onnx")
        names = [entry.name for entry in session.get_inputs()]
        for size in (1, 3):
            batch = tuple(torch.cat([x] * size) for x in inputs)
            feed = {name: x.numpy() for name, x in zip(names, batch, strict=True)}
            with torch.no_grad():
                wanted = outcome.model.eval()(*batch)
            found = torch.from_numpy(session.run(None, feed)[0])
            assert_close(found, wanted, tolerance=outcome.tolerance)

    def test_plan_survives_json(self, technique: Technique, case: Case) -> None:
        """Reading back what was written gives an equal plan."""
        model, inputs = case
        plan = technique(model, inputs, 0).plan
        assert from_json(type(plan), to_json(plan)) == plan

    def test_report_adds_up(self, technique: Technique, case: Case) -> None:
        """The plan's figures agree with one another and with the models counted afresh."""
        model, inputs = case
        outcome = technique(model, inputs, 0)
        adds_up(outcome.plan, model, outcome.model, inputs)


def adds_up(plan: Plan, before: nn.Module, after: nn.Module, inputs: Inputs) -> None:
    """Assert that a plan tells the truth about the model it came from and the one it made.

    Raises:
        AssertionError: It does not.
    """
    checks: dict[type, Callable[..., None]] = {
        PrunePlan: _pruning_adds_up,
        MaskPlan: _masking_adds_up,
        FoldPlan: _folding_adds_up,
        QuantPlan: _quantization_adds_up,
        DecomposePlan: _decomposition_adds_up,
        CodebookPlan: _codebooks_add_up,
        JointPlan: _joint_adds_up,
    }
    checks[type(plan)](plan, before, after, inputs)


def _pruning_adds_up(plan: PrunePlan, before: nn.Module, after: nn.Module, inputs: Inputs) -> None:
    widens = any(len(part.keep) > part.size for part in plan.slices)
    for group in plan.groups:
        assert sorted({*group.keep, *group.removed}) == list(range(group.units)), group.name
        assert widens or len(group.keep) + len(group.removed) == group.units, group.name
    shapes = {name: tuple(tensor.shape) for name, tensor in before.state_dict().items()}
    for part in plan.slices:
        assert shapes[part.param][part.axis] == part.size, part.param
        copied = widens and set(part.keep) == set(range(part.size))
        assert copied or list(part.keep) == sorted(set(part.keep)), part.param
        assert set(part.keep) <= set(range(part.size)), part.param
    found = {name: list(tensor.shape) for name, tensor in after.state_dict().items()}
    wanted = {name: list(shape) for name, shape in shapes.items()}
    for part in plan.slices:
        wanted[part.param][part.axis] = len(part.keep)
    # A carried constant may give a layer a bias that it had not; nothing else may change.
    assert {name: shape for name, shape in found.items() if name in wanted} == wanted
    costs = graph.cost(before, inputs), graph.cost(after, inputs)
    assert (plan.macs_before, plan.params_before) == (costs[0].macs, costs[0].params)
    assert plan.macs_after == costs[1].macs
    added = sum(tensor.numel() for name, tensor in after.named_parameters() if name not in shapes)
    assert plan.params_after in (costs[1].params, costs[1].params - added)


def _masking_adds_up(plan: MaskPlan, before: nn.Module, after: nn.Module, inputs: Inputs) -> None:
    old, new = before.state_dict(), after.state_dict()
    assert old.keys() == new.keys()
    masks = {mask.param: torch.from_numpy(mask.keep) for mask in plan.masks}
    for name, tensor in old.items():
        keep = masks.get(name, torch.ones_like(tensor, dtype=torch.bool))
        assert keep.shape == tensor.shape, name
        assert torch.equal(new[name], tensor.masked_fill(~keep, 0)), name
    assert plan.kept == sum(int(keep.sum()) for keep in masks.values())
    assert plan.of_all == sum(keep.numel() for keep in masks.values())


def _folding_adds_up(plan: FoldPlan, before: nn.Module, after: nn.Module, inputs: Inputs) -> None:
    norms = {name for name, module in before.named_modules() if isinstance(module, _BATCH_NORMS)}
    folded = plan.norms
    skipped = [entry.where for entry in plan.skipped]
    assert len(set(folded)) == len(folded)
    assert norms <= {*folded, *skipped}
    for name in folded:
        assert isinstance(after.get_submodule(name), nn.Identity), name
    for pair in plan.pairs:
        assert after.get_submodule(pair.layer).bias is not None, pair.layer
    with torch.no_grad():
        assert_close(after.eval()(*inputs), evaluated(before, inputs), tolerance=1e-4)


def _quantization_adds_up(plan: QuantPlan, before: nn.Module, after: nn.Module, inputs: Inputs) -> None:
    layers = dict(before.named_modules())
    names = [weight.layer for weight in plan.weights]
    assert len(set(names)) == len(names)
    terms = {record.layer: record.rows for record in plan.prepared.expanded}
    written = {r.first: len(r.channels) for r in plan.prepared.split if r.first}
    for weight in plan.weights:
        whole, _, term = weight.layer.partition(".term")
        assert whole in layers, weight.layer
        assert weight.qmax - weight.qmin < 2**weight.bits, weight.layer
        assert len(weight.scale) == len(weight.zero_point), weight.layer
        tensor = layers[whole].weight
        assert isinstance(tensor, Tensor)
        outputs = len(terms[whole][int(term) - 1]) if term else len(tensor) + written.get(whole, 0)
        entries = 1 if weight.axis is None else outputs
        entries *= 1 if weight.group is None else -(-tensor.shape[1] // weight.group)
        assert len(weight.scale) == entries, weight.layer
        assert all(scale > 0 for scale in weight.scale), weight.layer
    edges = [edge.name for edge in plan.edges]
    assert len(set(edges)) == len(edges)
    assert (
        len(plan.own_grids)
        == len({edge.node for edge in plan.edges})
        == len(plan.layer_grids | plan.own_grids)
    )
    for edge in plan.edges:
        assert edge.scale > 0, edge.node
        assert edge.qmin <= edge.zero_point <= edge.qmax, edge.node
        assert edge.qmax - edge.qmin < 2**edge.bits, edge.node


def _decomposition_adds_up(plan: DecomposePlan, before: nn.Module, after: nn.Module, inputs: Inputs) -> None:
    layers = dict(before.named_modules())
    names = [one.layer for one in plan.layers]
    assert len(set(names)) == len(names)
    for one in plan.layers:
        assert isinstance(after.get_submodule(one.layer), nn.Sequential), one.layer
        weight = layers[one.layer].weight
        assert isinstance(weight, Tensor)
        assert one.params_before == weight.numel(), one.layer
    costs = graph.cost(before, inputs), graph.cost(after, inputs)
    assert (plan.macs_before, plan.params_before) == (costs[0].macs, costs[0].params)
    assert (plan.macs_after, plan.params_after) == (costs[1].macs, costs[1].params)


def _joint_adds_up(plan: JointPlan, before: nn.Module, after: nn.Module, inputs: Inputs) -> None:
    factored = {one.layer: one for one in plan.decompose.layers}
    kept = {part.param: len(part.keep) for part in plan.prune.slices if part.axis == 0}
    for name in factored:
        made = after.get_submodule(name)
        assert isinstance(made, nn.Sequential), name
        outputs = made[-1].weight
        assert isinstance(outputs, Tensor)
        whole = before.get_parameter(f"{name}.weight")
        assert len(outputs) == kept.get(f"{name}.weight", len(whole)), name
    assert plan.prune.macs_after == plan.decompose.macs_before
    costs = graph.cost(before, inputs), graph.cost(after, inputs)
    assert (plan.macs_before, plan.params_before) == (costs[0].macs, costs[0].params)
    assert plan.macs_after == costs[1].macs
    # A carried constant may give a layer a bias that it had not.
    added = sum(
        tensor.numel()
        for name, tensor in after.named_parameters()
        if name.endswith(".bias") and name.rsplit(".", 2)[0] not in factored
        and not any(name == own for own, _ in before.named_parameters())
    )  # fmt: skip
    assert plan.params_after in (costs[1].params, costs[1].params - added)


def _codebooks_add_up(plan: CodebookPlan, before: nn.Module, after: nn.Module, inputs: Inputs) -> None:
    old, new = before.state_dict(), after.state_dict()
    assert old.keys() == new.keys()
    changed = {entry.param for entry in plan.layers} | {entry.bias for entry in plan.layers if entry.bias}
    for name, tensor in old.items():
        assert name in changed or torch.equal(tensor, new[name]), name
    for entry in plan.layers:
        values = set(new[entry.param].unique().tolist())
        assert values <= set(torch.tensor(entry.centroids).tolist()), entry.param
        assert len(entry.centroids) <= 2**entry.bits, entry.param
        assert bool((new[entry.param][old[entry.param] == 0] == 0).all()), entry.param


_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def evaluated(model: nn.Module, inputs: Inputs) -> Tensor:
    """The output of a copy of ``model`` in evaluation mode."""
    with torch.no_grad():
        output: Tensor = copy.deepcopy(model).eval()(*inputs)
    return output


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that a technique must not touch, as comparable data.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> before = fingerprint(model)
        >>> _ = model.weight.data.mul_(2)
        >>> fingerprint(model) == before
        False
    """
    seen: dict[str, Any] = {"structure": repr(model)}
    for name, module in model.named_modules():
        seen[f"mode of {name}"] = module.training
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        seen[f"hooks of {name}"] = tuple(len(entry) for entry in hooks)
        plain = {
            key: value for key, value in vars(module).items() if isinstance(value, int | float | str | tuple)
        }
        seen[f"attributes of {name}"] = plain
    for name, parameter in model.named_parameters():
        seen[f"gradient of {name}"] = (parameter.requires_grad, parameter.grad is None)
    for name, tensor in model.state_dict().items():
        raw = tensor.detach().cpu().contiguous()
        seen[name] = (str(raw.dtype), tuple(raw.shape), raw.numpy().tobytes())
    return seen


def same_numbers(a: nn.Module, b: nn.Module) -> bool:
    """Whether two models hold the same parameters and buffers, bit by bit."""
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def assert_close(found: Tensor, wanted: Tensor, *, tolerance: float) -> None:
    """Assert that the largest difference is at most ``tolerance`` of the largest wanted value.

    Example:
        >>> assert_close(torch.tensor([1.001]), torch.tensor([1.0]), tolerance=0.01)
    """
    assert found.shape == wanted.shape, f"shapes {tuple(found.shape)} and {tuple(wanted.shape)}"
    size = max(wanted.abs().max().item(), 1e-12)
    error = (found - wanted).abs().max().item() / size
    assert error <= tolerance, f"differs by {error:.2e} of the largest output, allowed {tolerance:.1e}"
