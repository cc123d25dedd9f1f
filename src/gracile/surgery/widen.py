"""Wider layers that compute the same: channels are doubled, and what reads them is shared out.

Source: Mishra, Nurvitadhi, Cook and Marr, "WRPN: wide reduced-precision networks", ICLR 2018, arXiv
1709.01134 (more filters make up for fewer bits); Chen, Goodfellow and Shlens, "Net2Net: accelerating
learning via knowledge transfer", ICLR 2016, arXiv 1511.05641 (Net2WiderNet: how a trained
network becomes wider without a change of its function). Where we differ: channels that must stay together
are found on the captured graph, so residual, grouped and attention networks widen too; copies get uneven
shares of what reads them, which tells them apart in training without the noise that Net2Net adds; and the
result is compared with the model itself.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.graph import RULES, Captured, Group, Provenance, capture, trace
from gracile.graph.copies import Copies
from gracile.graph.cost import cost_of
from gracile.graph.rules import bound, growing_pad_rule, packet, shape_of
from gracile.records import AttributeEdit, GroupPlan, ParamSlice, PrunePlan, Skipped

from .attributes import edits
from .reference import tensors_of
from .slice import apply_
from .verify import Stage, difference, run

Shares = Mapping[str, list[np.ndarray]]
"""Per group and unit: what each of its copies gets of the columns that read it; they sum to 1."""


@dataclass(frozen=True, kw_only=True)
class Widened:
    """A wider model, and the plan of its shape: a removal's, with indices that stand several times.

    ``gracile.surgery.apply(model, plan)`` gives a model of that shape (to load a checkpoint into), not its
    numbers.
    """

    model: nn.Module
    plan: PrunePlan


def widen(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    factor: float = 2.0,
    leave: Sequence[str] = (),
    uneven: float = 0.5,
    seed: int = 0,
) -> Widened:
    """Make every inner group of channels ``factor`` times as wide; the outputs stay the same.

    Unit ``u`` of a group becomes ``r_u`` copies with the same weights, biases and batch norms; columns that
    read copy ``i`` are those that read ``u`` times ``a_i``, with ``sum_i a_i = 1``. ``r_u`` is the factor
    where that is whole; else some units, drawn by ``seed``, have one more copy than others.

    Groups where copies would change the outputs (a layer norm with a factor that is not whole, a softmax over
    channels) stay as they are and are recorded. So do channels that meet zeros of a padding, unless the
    module that pads keeps the numbers as attributes; these are then changed too.

    Args:
        model: Any model that ``torch.export`` captures; left as it was.
        inputs: Example inputs, one image.
        factor: New units over old ones, at least 1; rounded to whole units.
        leave: Groups that stay, by name or pattern (``"layer1.*"``) of the group or a layer that writes it.
        uneven: From 0 (equal shares) to below 1: how far shares may differ, so that copies learn apart.
        seed: Of shares, and of the inputs that the result is tried on.

    Raises:
        BadArgument: A number outside its range, or a name in ``leave`` that fits nothing.
        CaptureError: The model cannot be captured.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> wide = widen(net, (torch.zeros(1, 2),)).model
        >>> x = torch.randn(5, 2)
        >>> wide[0], torch.allclose(wide(x), net(x), atol=1e-6)
        (Linear(in_features=2, out_features=6, bias=True), True)
    """
    if not factor >= 1 or not 0 <= uneven < 1:
        wanted = "a factor of at least 1 and 0 <= uneven < 1"
        raise BadArgument("widen", wanted=wanted, found=f"{factor=}, {uneven=}")
    pads = dict.fromkeys(("pad", "constant_pad_nd"), growing_pad_rule)
    provenance = trace(capture(model, inputs), {**RULES, **pads})
    free, left = _split(provenance.groups, leave)
    draw = np.random.default_rng(seed)
    shares = {g.name: _shares(g.units, factor, uneven, draw) for g in free}
    stage = Stage(model, inputs, seed)
    fit = _fitting(stage, provenance, shares)
    why = "copies of its channels change the outputs: something counts, compares or multiplies them together"
    skipped = (*provenance.frozen, *left, *(Skipped(n, why) for n in shares if n not in fit))
    plan = _plan(model, provenance, fit, skipped, factor)
    return Widened(model=_widened(model, provenance, fit, plan), plan=plan)


def _split(groups: Sequence[Group], leave: Sequence[str]) -> tuple[tuple[Group, ...], tuple[Skipped, ...]]:
    names = {g.name: {g.name, *(s.param.removesuffix(".weight") for s in g.writers)} for g in groups}
    stays: dict[str, str] = {}
    for pattern in leave:
        hits = [name for name, own in names.items() if fnmatch.filter(own, pattern)]
        if not hits:
            raise BadArgument("leave", wanted="a group or a layer that writes one", found=pattern,
                              do=f"Choose from {', '.join(names)}.")  # fmt: skip
        stays |= dict.fromkeys(hits, f"left alone: {pattern}")
    free = tuple(g for g in groups if g.name not in stays)
    return free, tuple(Skipped(name, why) for name, why in stays.items())


def _shares(units: int, factor: float, uneven: float, draw: np.random.Generator) -> list[np.ndarray]:
    """For each unit the shares of its copies."""
    more = round(units * factor)
    times = np.full(units, more // units)
    times[draw.permutation(units)[: more % units]] += 1
    parts = [1 + uneven * draw.uniform(-1, 1, n) for n in times]
    return [p / p.sum() for p in parts]


class _Wide:
    """Shapes of a captured graph after widening, as :class:`~gracile.surgery.attributes.Shapes`."""

    def __init__(self, provenance: Provenance, shares: Shares) -> None:
        self.provenance = provenance
        self.times = provenance.times({name: [len(s) for s in own] for name, own in shares.items()})
        self._known: dict[str, dict[int, np.ndarray]] = {}

    @property
    def captured(self) -> Captured:
        return self.provenance.captured

    def kept(self, node: str, gone: np.ndarray) -> dict[int, np.ndarray]:
        """Old index of each entry, per axis that grows; ``gone`` is always ``times``."""
        if node not in self._known:
            found = self.provenance.repeated(node, gone)
            self._known[node] = {axis: copies.index for axis, copies in found.items()}
        return self._known[node]

    def sizes(self, node: str) -> dict[int, int]:
        """New sizes of the axes that grow."""
        return {axis: index.size for axis, index in self.kept(node, self.times).items()}

    def parameters(self) -> dict[tuple[str, int], Copies]:
        """Parameters and axes that grow."""
        return self.provenance.repeated_parameters(self.times)


def _plan(
    model: nn.Module,
    provenance: Provenance,
    shares: Shares,
    skipped: tuple[Skipped, ...] = (),
    factor: float = 0.0,
) -> PrunePlan:
    wide = _Wide(provenance, shares)
    grown = wide.parameters()
    slices = []
    for (param, axis), found in grown.items():
        keep = tuple(int(i) for i in found.index)
        slices.append(ParamSlice(param=param, axis=axis, size=int(found.index.max()) + 1, keep=keep))
    groups = []
    for name, own in shares.items():
        group = provenance.group(name)
        keep = tuple(u for u, parts in enumerate(own) for _ in parts)
        groups.append(GroupPlan(name=name, units=group.units, keep=keep, members=group.members))
    before = provenance.cost()
    after = cost_of(provenance.captured, wide.sizes, {key: c.index.size for key, c in grown.items()})
    return PrunePlan(
        groups=tuple(groups),
        slices=tuple(slices),
        attributes=(*edits(model, wide, wide.times), *_groups(model, wide)),
        skipped=skipped,
        criterion="widening",
        budget=f"{factor:g} times the units",
        macs_before=before.macs,
        macs_after=after.macs,
        params_before=before.params,
        params_after=after.params,
    )


def _groups(model: nn.Module, wide: _Wide) -> Iterator[AttributeEdit]:
    """Grouped convolutions: how many groups there are follows from the inputs and the weight."""
    for node in wide.captured.graph.nodes:
        if node.op != "call_function" or not packet(node).startswith("conv"):
            continue
        args = bound(node)
        name = (wide.captured.param_of(args["weight"]) or "").removesuffix(".weight")
        conv = dict(model.named_modules()).get(name)
        if not isinstance(conv, nn.modules.conv._ConvNd) or conv.groups == 1:
            continue
        inputs = wide.sizes(args["input"].name).get(1, conv.in_channels)
        outputs = wide.sizes(node.name).get(1, conv.out_channels)
        second = wide.sizes(args["weight"].name).get(1, shape_of(args["weight"])[1])
        new = {
            "in_channels": inputs,
            "out_channels": outputs,
            "groups": (outputs if conv.transposed else inputs) // second,
        }
        for attribute, value in new.items():
            yield AttributeEdit(module=name, attribute=attribute, old=getattr(conv, attribute), new=value)


def _widened(model: nn.Module, provenance: Provenance, shares: Shares, plan: PrunePlan) -> nn.Module:
    """A wider copy of ``model``, its columns shared out."""
    wide = apply_(copy.deepcopy(model), plan)
    held = tensors_of(wide)
    grown = _Wide(provenance, shares).parameters()
    with torch.no_grad():
        for name, own in shares.items():
            for slot in provenance.group(name).readers:
                if (slot.param, slot.axis) not in grown:
                    continue
                tensor = held[slot.param]
                factor = _along(grown[slot.param, slot.axis], slot.index, own)
                shape = [1] * tensor.dim()
                shape[slot.axis] = -1
                tensor.mul_(torch.from_numpy(factor).to(tensor).view(shape))
    return wide


def _along(found: Copies, index: np.ndarray, own: list[np.ndarray]) -> np.ndarray:
    """What each entry of a reading axis is multiplied with."""
    unit = np.full(int(found.index.max()) + 1, -1)
    unit[index] = np.arange(len(index))[:, None]
    read = unit[found.index]
    return np.array([1.0 if u < 0 else own[u][n] for u, n in zip(read, found.number, strict=True)])


def _fitting(stage: Stage, provenance: Provenance, shares: Shares) -> dict[str, list[np.ndarray]]:
    """The groups that can all be widened at once without a change of the outputs, found by trying."""
    fit: dict[str, list[np.ndarray]] = {}

    def add(names: Sequence[str]) -> None:
        trial = fit | {n: shares[n] for n in names}
        if _same(stage, provenance, trial):
            fit.update(trial)
        elif len(names) > 1:
            add(names[: len(names) // 2])
            add(names[len(names) // 2 :])

    add(list(shares))
    return {name: own for name, own in shares.items() if name in fit}


def _same(stage: Stage, provenance: Provenance, shares: Shares) -> bool:
    plan = _plan(stage.model, provenance, shares)
    try:
        found = run(_widened(stage.model, provenance, shares, plan), stage.inputs)
    except Exception:  # the model's own code may object to its width with any error
        return False
    return difference(found, stage.base) <= stage.tolerance
