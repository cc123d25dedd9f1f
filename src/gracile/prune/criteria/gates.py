"""What happens at a unit's gate: its activations where they are read, and the loss's derivatives there.

A gate is a factor, 1 for a unit that is there and 0 for one that is gone, on everything that reads the unit.
Its derivative for one example is ``sum z * dL/dz`` over the positions of the unit in the inputs of the layers
that read it, and only along the ways through those layers: around a residual sum the same channel is read
many times, and each reader counts once. Source of the sum: Molchanov, Tyree, Karras, Aila and Kautz,
"Pruning convolutional neural networks for resource efficient inference", ICLR 2017, arXiv 1611.06440, eq. 8.
Where we differ: gates of whole groups, which the captured graph finds without a list of layer types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from gracile.errors import BadArgument
from gracile.graph import Captured, Group, Provenance, capture, trace
from gracile.graph.rules import bound
from gracile.observe import Batch
from gracile.surgery.reference import arguments_of

from ..layers import is_weighted
from .criterion import Scene
from .examples import Example, logits, plain_attention, predicted

Backward = Callable[[Tensor, Tensor], Tensor]
"""Outputs and targets to one number, whose derivative with respect to the gates is taken."""


@dataclass(frozen=True, kw_only=True)
class Tap:
    """A place where a group's activations are seen: an operation, its input ("read") or its output.

    ``unit`` says for each entry of ``axis`` which unit it belongs to, -1 for none.
    """

    group: str
    units: int
    node: fx.Node
    reads: bool
    axis: int
    unit: Tensor

    def per_unit(self, entries: Tensor) -> Tensor:
        """Sum numbers ``(examples, entries)`` over the entries of each unit ``(examples, units)``."""
        known = self.unit >= 0
        found = entries.new_zeros(len(entries), self.units)
        return found.index_add_(1, self.unit[known].to(entries.device), entries[:, known])


def examples_of(scene: Scene) -> tuple[Example, ...]:
    """The scene's labelled examples, or its unlabelled inputs with the model's own predictions.

    Raises:
        BadArgument: There are neither.
    """
    if scene.labelled:
        return scene.labelled
    return predicted(scene.model, inputs_of(scene))


def inputs_of(scene: Scene) -> tuple[Batch, ...]:
    """The scene's unlabelled inputs, or those of its labelled examples.

    Raises:
        BadArgument: There are neither.
    """
    found = scene.calibration or tuple(inputs for inputs, _ in scene.labelled)
    if not found:
        raise BadArgument(
            "calibration",
            wanted="inputs for a criterion that looks at data",
            found="none",
            do="Pass labelled= or calibration=, or choose a criterion of weights such as L1.",
        )
    return found


def find_taps(scene: Scene, batch: Batch) -> tuple[Captured, tuple[Tap, ...]]:
    """Capture the model at this batch size and find where each group is read.

    A group that no weight reads (queries and keys, say) is seen where it is written.
    """
    found = trace(capture(scene.model, batch))
    taps = [tap for g in scene.groups for tap in _taps(found, found.group(g.name))]
    return found.captured, tuple(taps)


def _taps(provenance: Provenance, group: Group) -> list[Tap]:
    captured = provenance.captured
    calls = [n for n in captured.graph.nodes if n.op == "call_function"]
    weighted = {n: captured.param_of(bound(n)["weight"]) for n in calls if is_weighted(n)}
    read, written = {s.param for s in group.readers}, {s.param for s in group.writers}

    def tapped(nodes: Sequence[fx.Node], reads: bool) -> list[Tap]:
        return [tap for n in nodes if (tap := _tap(provenance, group, n, reads=reads)) is not None]

    return (
        tapped([n for n, weight in weighted.items() if weight in read], True)
        or tapped([n for n, weight in weighted.items() if weight in written], False)
        or tapped(calls, False)[:1]
    )


def _tap(provenance: Provenance, group: Group, node: fx.Node, *, reads: bool) -> Tap | None:
    at = bound(node)["input"] if reads else node
    found = provenance.places(at.name, group)
    if found is None:
        return None
    return Tap(group=group.name, units=group.units, node=node, reads=reads, axis=found[0],
               unit=torch.from_numpy(np.asarray(found[1])))  # fmt: skip


class _Watched(fx.Interpreter):
    """Runs a captured graph and keeps what passes each tap."""

    def __init__(self, captured: Captured, taps: Sequence[Tap], *, gradients: bool) -> None:
        super().__init__(captured.program.graph_module)
        self.reads = {t.node.name for t in taps if t.reads}
        self.writes = {t.node.name for t in taps if not t.reads}
        self.gradients = gradients
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.name in self.writes:
            self.seen[n.name] = self._own(super().run_node(n))
            return self.seen[n.name].clone()  # an operation in place must not change what was seen
        if n.name not in self.reads:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        self.seen[n.name] = self._own(args[0])
        return n.target(self.seen[n.name], *args[1:], **kwargs)  # type: ignore[operator]

    def _own(self, x: Tensor) -> Tensor:
        """The same numbers as a tensor of their own: its derivative is that through this place only."""
        if not self.gradients:
            return x
        return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()


def gate_gradients(scene: Scene, backward: Backward) -> dict[str, np.ndarray]:
    """Derivatives of each example's number with respect to every gate.

    Args:
        scene: The model and its data; labels are the model's own where there are none.
        backward: Outputs and targets of a batch to the sum of its examples' numbers.

    Returns:
        Per group ``(examples, units)``, float64.
    """
    examples = examples_of(scene)
    captured, taps = find_taps(scene, examples[0][0])
    parts: dict[str, list[np.ndarray]] = {g.name: [] for g in scene.groups}
    for batch, targets in examples:
        watched = _Watched(captured, taps, gradients=True)
        with torch.enable_grad(), plain_attention():
            outputs = logits(watched.run(*arguments_of(captured, scene.model, batch)))
            total = backward(outputs, targets.to(outputs.device))
        names = list(watched.seen)
        slopes = torch.autograd.grad(total, [watched.seen[n] for n in names], allow_unused=True)
        by_name = dict(zip(names, slopes, strict=True))
        sums = {g.name: np.zeros((len(targets), g.units)) for g in scene.groups}
        for tap in taps:
            slope = by_name[tap.node.name]
            if slope is not None:
                product = watched.seen[tap.node.name].detach() * slope
                sums[tap.group] += _each(product, tap, len(targets)).double().cpu().numpy()
        for name, part in sums.items():
            parts[name].append(part)
    return {name: np.concatenate(found) for name, found in parts.items()}


def _each(product: Tensor, tap: Tap, examples: int) -> Tensor:
    """Sum over positions: one number an example and unit."""
    per_entry = product.movedim(tap.axis, -1)
    if tap.axis == 0 or len(per_entry) % examples:  # no axis of examples to be found: equal parts
        whole = per_entry.reshape(1, -1, per_entry.shape[-1]).sum(1) / examples
        return tap.per_unit(whole.expand(examples, -1))
    return tap.per_unit(per_entry.reshape(examples, -1, per_entry.shape[-1]).sum(1))


def activation_means(scene: Scene, of: Callable[[Tensor], Tensor]) -> dict[str, np.ndarray]:
    """Mean of a function of the activations, for each place where a group is read.

    Args:
        scene: The model and its data.
        of: Elementwise function of activations.

    Returns:
        Per group ``(places, units)``, float64.
    """
    batches = inputs_of(scene)
    captured, taps = find_taps(scene, batches[0])
    totals = [np.zeros(t.units) for t in taps]
    counts = [np.zeros(t.units) for t in taps]
    for batch in batches:
        watched = _Watched(captured, taps, gradients=False)
        with torch.no_grad():
            watched.run(*arguments_of(captured, scene.model, batch))
        for i, tap in enumerate(taps):
            per_entry = of(watched.seen[tap.node.name]).movedim(tap.axis, -1).double()
            flat = per_entry.reshape(1, -1, per_entry.shape[-1])
            totals[i] += tap.per_unit(flat.sum(1))[0].cpu().numpy()
            counts[i] += tap.per_unit(torch.full_like(flat[:, 0], flat.shape[1]))[0].cpu().numpy()
    means: dict[str, list[np.ndarray]] = {g.name: [] for g in scene.groups}
    for tap, total, count in zip(taps, totals, counts, strict=True):
        means[tap.group].append(total / np.maximum(count, 1))
    return {name: np.stack(rows) for name, rows in means.items()}
