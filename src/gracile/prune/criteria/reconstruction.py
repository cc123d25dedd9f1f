"""Least-squares cost of a channel: what removing it does to the layers that read it, refitted.

Source: He, Zhang and Sun, "Channel pruning for accelerating very deep neural networks", ICCV 2017, arXiv
1707.06168, equations 1-3: choose channels by the error of the reconstructed consumer. Where we differ:
instead of LASSO, backward elimination with an exact refit after each step (``elimination``); errors are taken
where the layer's affine tail ends (behind batch norm, in the residual sum), relative to what varies there, so
that they compare between layers and budgets can go by error per multiply-add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gracile.errors import BadArgument
from gracile.graph import Captured, Group, capture
from gracile.observe import Batch
from gracile.observe.gram import Gram
from gracile.surgery.reference import tensors_of

from ..layers import MAX_COLUMNS, Layer, affine, find_layers
from ..repair.least_squares import ridge_of
from ..walk import Walk
from .criterion import Scene, Scores
from .elimination import Fitted, Reader, eliminate


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """Score a unit by the relative error that its removal adds after a least-squares refit.

    For each layer that reads the group, with fitted error ``E = sum_o d_o ||X w_o - y_o||^2``, the score is
    the rise of ``E / sum_o var(end_o)`` when the unit goes, summed over the layers; ``d`` is the squared
    scale of a batch norm behind the layer, ``end`` the residual sum (or norm, or layer) where its affine tail
    ends. Scores never fall along the order of removal. Groups whose readers cannot be fitted (grouped,
    attention) are scored by their share of the writers' squared weights.

    Example:
        >>> from gracile.graph import trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]))
        >>> found = trace(capture(net, (torch.zeros(1, 2),)))
        >>> data = ((torch.randn(64, 2),),)
        >>> scene = Scene(model=net, provenance=found, groups=found.groups, calibration=data)
        >>> bool(min(Reconstruction()(scene)["0"][[0, 2]]) < 1e-3)  # one says what the other says
        True
    """

    marginal: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit.

        Raises:
            BadArgument: ``scene`` holds no calibration data.
        """
        batches = scene.calibration or tuple(inputs for inputs, _ in scene.labelled)
        if not batches:
            raise BadArgument(
                "calibration",
                wanted="unlabelled inputs for the criterion `reconstruction`",
                found="none",
                do="Pass calibration=, or choose L1 or L2.",
            )
        captured = capture(scene.model, batches[0])
        read = {slot.param for g in scene.groups for slot in g.readers if slot.axis == 1}
        chosen = [x for x in find_layers(captured).values() if x.weight in read and x.columns <= MAX_COLUMNS]
        solved = _solved(scene, batches, captured, chosen)
        return {g.name: _score(scene, g, solved) for g in scene.groups}


@dataclass(frozen=True, kw_only=True)
class _Solved:
    """A layer's fit to its own outputs, the importance of these, and its taps a channel."""

    fitted: Fitted
    importance: Tensor
    taps: int


def _solved(
    scene: Scene, batches: Sequence[Batch], captured: Captured, layers: Sequence[Layer]
) -> dict[str, _Solved]:
    """One pass over the data; by the name of the weight."""
    held = tensors_of(scene.model)
    draw = torch.Generator().manual_seed(scene.seed)
    images = sum(len(b[0]) for b in batches)
    grams = {x.weight: Gram(x.name, x.columns, 0) for x in layers}
    ends: dict[str, Gram] = {}
    for batch in batches:
        walk = Walk(captured, held.__getitem__, [batch])
        for layer in layers:
            at = layer.positions(images, draw)
            rows = layer.inputs(walk(layer.source)[0], at)
            grams[layer.weight].update(rows, rows.new_zeros(len(rows), 0))
            end = layer.outputs(walk(layer.end)[0], at)
            ends.setdefault(layer.weight, Gram(layer.name, 0, end.shape[1])).update(end[:, :0], end)
    return {x.weight: _solve(captured, x, grams.pop(x.weight), ends[x.weight], held) for x in layers}


def _solve(captured: Captured, layer: Layer, gram: Gram, end: Gram, held: dict[str, Tensor]) -> _Solved:
    weight = held[layer.weight].detach().double().cpu().flatten(1).T  # (columns, outputs)
    bias = held[layer.bias].detach().double().cpu() if layer.bias else weight.new_zeros(weight.shape[1])
    scale = torch.ones(weight.shape[1], dtype=torch.float64)
    if layer.norm is not None:
        scale = affine(captured, layer.norm, held)[0].double().cpu()
    variance = float((end.yy / end.rows - (end.xy[0] / end.rows).square()).clamp_min(0).sum())
    xx = gram.xx / gram.rows
    return _Solved(
        fitted=Fitted.of(xx, xx @ torch.cat([weight, bias[None]]), ridge_of(xx, gram.rows)),
        importance=scale.square() / max(variance, 1e-30),
        taps=layer.columns // int(held[layer.weight].shape[1]),
    )


def _score(scene: Scene, group: Group, solved: dict[str, _Solved]) -> np.ndarray:
    readers = []
    for slot in group.readers:
        found = solved.get(slot.param) if slot.axis == 1 else None
        if found is not None:
            taps = torch.arange(found.taps)
            index = torch.from_numpy(slot.index)[:, :, None] * found.taps + taps
            readers.append(Reader(found.fitted, found.importance, index.flatten(1)))
    if not readers:
        return _share(scene, group)
    order, rises = eliminate(readers, group.units)
    steps = np.maximum.accumulate(np.asarray(rises))
    scores = np.empty(group.units)
    scores[order] = steps * (1 + 1e-9 * np.arange(group.units)) + 1e-15 * np.arange(group.units)
    return scores


def _share(scene: Scene, group: Group) -> np.ndarray:
    """Mean share of each unit in the squared weights of the layers that write it."""
    held = tensors_of(scene.model)
    shares = []
    for slot in group.scored:
        weight = held[slot.param].detach().double().cpu().movedim(slot.axis, 0).flatten(1)
        energy = weight[torch.from_numpy(slot.index)].square().flatten(1).sum(1).numpy()
        shares.append(energy / max(float(energy.sum()), 1e-30))
    mean: np.ndarray = np.stack(shares).mean(0)
    return mean
