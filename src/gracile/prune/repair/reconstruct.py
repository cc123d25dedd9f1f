"""Refit, layer by layer, everything behind removed channels, so that it gives what the original gave.

Source: He, Zhang and Sun, "Channel pruning for accelerating very deep neural networks", ICCV 2017, arXiv
1707.06168: least squares of each consumer on its remaining inputs (equation 1 with the channels fixed), and
section 3.2: inputs from the pruned network, targets from the original, and in a residual block ``Y1 - Y1' +
Y2`` as the target, which makes up for the error of the shortcut. Where we differ: the sums and norms are
found on the captured graph, in any architecture; every layer whose input changed is refitted, those that lost
no inputs too; a batch norm behind a refitted layer keeps its statistics, which fit the targets.

Both networks run in lockstep, operation by operation, over all calibration images, so each layer is fitted to
inputs that it will really see.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from gracile.errors import BadArgument, NonFiniteError, UnsupportedOperation
from gracile.graph import Captured, capture, cost
from gracile.graph.rules import RULES, bound, packet, rule_for
from gracile.observe import Calibration, chunks
from gracile.observe.gram import Gram, GroupedGram
from gracile.records import PrunePlan
from gracile.surgery.reference import tensors_of

from ..layers import KINDS, MAX_COLUMNS, Kind, Layer, affine, find_layers, is_norm, own, part_of
from ..walk import Walk
from .least_squares import fit, ridge_of

BATCH = 32
MEMORY_BYTES = 2 << 30
_OVER_CHANNELS = {
    RULES[name]
    for name in (
        "layer_norm",
        "group_norm",
        "matmul",
        "einsum",
        "scaled_dot_product_attention",
        "mean",
        "softmax",
    )
}
Projection = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A fitted weight ``(out, in, *kernel)``, the moments ``(in * taps, in * taps)`` of what one output reads and
what the error of each output weighs ``(out,)`` to the weight that takes its place, all in float64."""
SMALLEST_SCALE = 1e-3  # of a norm's largest scale: below it the target is not divided by the scale


@dataclass(frozen=True, kw_only=True)
class Refit:
    """One layer: squared error relative to the variance of the target, before and after its fit."""

    layer: str
    before: float
    after: float


@torch.no_grad()
def reconstruct_(
    small: nn.Module,
    original: nn.Module,
    plan: PrunePlan,
    calibration: Calibration,
    *,
    kinds: Collection[Kind] = KINDS,
    reestimate_bn: bool = True,
    project: Mapping[str, Projection] | None = None,
    memory_bytes: int = MEMORY_BYTES,
    seed: int = 0,
) -> tuple[Refit, ...]:
    """Refit ``small`` to ``original``, in place.

    Args:
        small: What ``plan`` left of the original; weights, biases and running means change.
        original: The model before the removal.
        plan: Tells which outputs of each layer stay.
        calibration: Unlabelled inputs.
        kinds: Layers to refit: ``conv``, ``linear``, ``grouped`` (depthwise too) and ``transposed``.
        reestimate_bn: Correct the statistics of batch norms that follow no refitted layer as they are
            reached: by the difference of means and the ratio of variances that
            the two networks show on the calibration data.
        project: By layer name, what the fitted weight is replaced by, as one of low rank; intercepts follow,
            and all layers behind are fitted to what it gives. Layers in groups are not projected.
        memory_bytes: Bound on the activations held; of more images than fit, the first are used.
        seed: Of the positions that are sampled in large feature maps.

    Returns:
        One record for each refitted layer, in order. Left as they are: layers that run more than once, those
        with more than ``MAX_COLUMNS`` inputs times taps a group, and transposed convolutions in groups of
        several channels.

    Raises:
        BadArgument: A kind is not known.
        NonFiniteError: Activations hold NaN or infinity.
        UnsupportedOperation: The narrowed model runs other operations than the original.
    """
    if not set(kinds) <= set(KINDS):
        raise BadArgument("kinds", wanted=f"some of {', '.join(KINDS)}", found=f"{tuple(kinds)}")
    batches = chunks(calibration, BATCH, original)
    peak = cost(original, tuple(x[:1] for x in batches[0])).peak_activation_bytes
    fits = max(1, memory_bytes // (2 * max(peak, 1) * len(batches[0][0])))
    lockstep = _Lockstep(small, original, plan, batches[:fits], kinds, reestimate_bn, project or {}, seed)
    return lockstep.run()


class _Lockstep:
    """The two networks, and what is known of the layers."""

    def __init__(
        self,
        small: nn.Module,
        original: nn.Module,
        plan: PrunePlan,
        batches: Sequence[tuple[Tensor, ...]],
        kinds: Collection[Kind],
        reestimate_bn: bool,
        project: Mapping[str, Projection],
        seed: int,
    ) -> None:
        self.model, self.reestimate_bn, self.project = small, reestimate_bn, project
        before, after = capture(original, batches[0]), capture(small, batches[0])
        self.pairs = _pair(before, after)
        self.live = tensors_of(small)
        self.layers = find_layers(after, kinds)
        self.captured = after
        self.targets = Walk(before, tensors_of(original).__getitem__, batches)
        self.walk = Walk(after, self.live.__getitem__, batches, before=self._visit)
        self.keep = {s.param: torch.tensor(s.keep) for s in plan.slices if s.axis == 0}
        across = {x.weight for x in self.layers.values() if x.transposed and x.groups == 1}
        outs = {s.param: torch.tensor(s.keep) for s in plan.slices if s.axis == 1 and s.param in across}
        self.keep = {k: v for k, v in self.keep.items() if k not in across} | outs
        projected = {x.weight for x in self.layers.values() if x.name in project and x.groups == 1}
        self.changed = _changed(after, plan, projected)
        self.refitted = {x.norm for x in self.layers.values() if self._wanted(x) and x.norm is not None}
        self.images = sum(len(b[0]) for b in batches)
        self.draw = torch.Generator().manual_seed(seed)
        self.under_way: set[fx.Node] = set()
        self.records: list[Refit] = []

    def run(self) -> tuple[Refit, ...]:
        for node in self.walk.nodes:
            wanted = node.name in self.layers or (node.op == "call_function" and is_norm(node))
            if wanted and node not in self.walk.done:
                self.walk(node)
        return tuple(self.records)

    def _wanted(self, layer: Layer) -> bool:
        return layer.node in self.changed and layer.columns <= MAX_COLUMNS

    def _visit(self, node: fx.Node) -> None:
        """Fit a layer, or estimate a norm's statistics, just before it runs."""
        layer = self.layers.get(node.name)
        if layer is not None and self._wanted(layer):
            self.under_way.add(node)
            self.records.append(self._refit(layer))
            self.under_way.discard(node)
        elif self.reestimate_bn and self._follows_no_fit(node):
            self._statistics(node)

    def _follows_no_fit(self, node: fx.Node) -> bool:
        return is_norm(node) and node not in self.refitted and bound(node)["input"] in self.changed

    def _refit(self, layer: Layer) -> Refit:
        weight = self.live[layer.weight]
        matrices = layer.matrices(weight)  # (groups, outputs of a group, columns)
        groups, outputs, _ = matrices.shape
        seen = GroupedGram(layer.name, groups, layer.columns, outputs)
        at = layer.positions(self.images, self.draw)
        for x, y in zip(self.walk(layer.source), self._wished(layer), strict=True):
            seen.update(layer.inputs(x, at), layer.outputs(y, at))
        bias = weight.new_zeros(groups * outputs) if layer.bias is None else self.live[layer.bias]
        olds = torch.cat([matrices.mT, bias.view(groups, 1, outputs)], 1).double().cpu()
        movable = layer.bias is not None or layer.mean is not None
        grams = seen.split()
        fitted = [_fitted(gram, old, movable) for gram, old in zip(grams, olds, strict=True)]
        if layer.name in self.project and groups == 1:
            fitted = [self._projected(layer, grams[0], fitted[0], movable)]
        new = torch.stack([f.weights for f in fitted])
        if not bool(new.isfinite().all()):
            raise NonFiniteError(layer.name, wanted="a finite least-squares fit", found="NaN or infinity",
                                 do="Give more calibration images.")  # fmt: skip
        weight.copy_(layer.weight_of(new[:, :-1].mT, weight))
        intercept = new[:, -1].reshape(-1)
        if layer.bias is not None:
            bias.copy_(intercept)
        elif layer.mean is not None:  # norm(x + b) with mean m is norm(x) with mean m - b
            self.live[layer.mean].sub_(intercept.to(self.live[layer.mean]))
        variance = max(sum(f.variance for f in fitted), 1e-30)
        return Refit(
            layer=layer.name,
            before=sum(f.before for f in fitted) / variance,
            after=sum(f.after for f in fitted) / variance,
        )

    def _projected(self, layer: Layer, gram: Gram, found: _Fit, movable: bool) -> _Fit:
        """The fit within what the layer may be, and the best intercept for it."""
        xx, xy, yy = gram.xx / gram.rows, gram.xy / gram.rows, gram.yy / gram.rows
        moments, mean = xx[:-1, :-1], xx[:-1, -1]
        if movable:  # means cost nothing
            moments = moments - mean[:, None] * mean[None]
        weight = self.live[layer.weight]
        matrix = layer.weight_of(found.weights[:-1].mT[None], weight)
        weighs = torch.ones(len(matrix), dtype=torch.float64)
        if layer.norm is not None:
            weighs = affine(self.captured, layer.norm, self.live)[0].square().double().cpu()
        new = self.project[layer.name](matrix, moments, weighs)
        columns = layer.matrices(new)[0].mT.double().cpu()
        intercept = xy[-1] - columns.mT @ mean if movable else found.weights[-1]
        weights = torch.cat([columns, intercept[None]])
        return _Fit(weights, found.before, _error(xx, xy, yy, weights), found.variance)

    def _wished(self, layer: Layer) -> list[Tensor]:
        """Outputs that the layer should give, one tensor a batch.

        In a sum, ``(sum_original - other_small - shift) / scale``, with the norm ``y = scale x + shift``
        between.
        """
        plain, border = self._original(layer.node, layer), self._border(layer)
        view = [1, -1, *[1] * (plain[0].dim() - 2)] if layer.window is not None else [-1]
        if layer.norm is None:
            inverse, shift, left = plain[0].new_ones(()), plain[0].new_zeros(()), None
        else:
            scale, shift = affine(self.captured, layer.norm, self.live)
            usable = scale.abs() > SMALLEST_SCALE * scale.abs().max()
            inverse, shift = torch.where(usable, 1 / scale, 0.0).view(view), shift.view(view)
            left = (~usable).to(scale.dtype).view(view)
        if border is not None:
            plain = [p - border * inverse for p in plain]
            shift = shift + border
        pair = self._sums(layer)
        if pair is None:
            return plain
        if left is None:
            return [s - o - shift for s, o in zip(*pair, strict=True)]
        return [(s - o - shift) * inverse + p * left for s, o, p in zip(*pair, plain, strict=True)]

    def _border(self, layer: Layer) -> Tensor | None:
        """The map that is added behind the layer, ``(1, outputs, *space)``."""
        if layer.border is None:
            return None
        found: Tensor = self.walk(layer.border)[0]
        return found[None]

    def _sums(self, layer: Layer) -> tuple[list[Tensor], list[Tensor]] | None:
        """Residual sums of the original and what the small network adds there, for the layer's outputs."""
        other = layer.other
        if layer.total is None or other is None or self._waits_on_me(other):
            return None
        others = self.walk(other)
        if layer.table is None:
            sums = self._original(layer.total, layer)
        else:
            sums = self.targets(self.pairs[layer.total])
        if sums[0].shape != others[0].shape:
            return None
        if layer.table is None:
            return sums, others
        table = self.live[layer.table]
        kept = int(self.live[layer.weight].shape[0])
        places = torch.nonzero(table < kept)[:, 0]
        places = places[torch.argsort(table[places])]
        return [s.index_select(1, places) for s in sums], [o.index_select(1, places) for o in others]

    def _original(self, node: fx.Node, layer: Layer) -> list[Tensor]:
        """The original's values of ``node``, those channels that stay."""
        values = self.targets(self.pairs[node])
        keep = self.keep.get(layer.weight)
        if keep is None:
            return values
        axis = 1 if layer.window is not None else -1
        return [v.index_select(axis, keep.to(v.device)) for v in values]

    def _waits_on_me(self, node: fx.Node) -> bool:
        """Whether ``node`` needs a layer that is being fitted."""
        seen, stack = set(), [node]
        while stack:
            at = stack.pop()
            if at in self.under_way:
                return True
            if at not in seen:
                seen.add(at)
                stack.extend(at.all_input_nodes)
        return False

    def _statistics(self, norm: fx.Node) -> None:
        """Move the running statistics as the removal moved those of the calibration data."""
        source = bound(norm)["input"]
        mean, var = (own(self.captured, bound(norm)[f"running_{kind}"]) for kind in ("mean", "var"))
        if mean is None or var is None:
            return
        keep = self.keep.get(mean)
        old = self.targets(self.pairs[source])
        old = old if keep is None else [x.index_select(1, keep.to(x.device)) for x in old]
        mean_old, var_old = _moments(mean, old)
        mean_new, var_new = _moments(mean, self.walk(source))
        wider = torch.where(var_old > 0, var_new / var_old.clamp_min(1e-30), 1.0)
        self.live[mean].add_((mean_new - mean_old).to(self.live[mean]))
        self.live[var].mul_(wider.to(self.live[var]))


def _moments(name: str, batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance of every channel over all batches."""
    gram = Gram(name.rpartition(".")[0], 0, int(batches[0].shape[1]))
    for x in batches:
        rows = x.movedim(1, -1).reshape(-1, x.shape[1])
        gram.update(rows[:, :0], rows)
    mean = gram.xy[0] / gram.rows
    return mean, (gram.yy / gram.rows - mean.square()).clamp_min(0)


def _error(xx: Tensor, xy: Tensor, yy: Tensor, w: Tensor) -> float:
    """Mean squared error of ``X W`` from second moments, summed over outputs."""
    return max(float(yy.sum() - 2 * (w * xy).sum() + (w * (xx @ w)).sum()), 0.0)


@dataclass(frozen=True)
class _Fit:
    """Weights and intercept of one group ``(columns + 1, outputs)``, and its squared errors."""

    weights: Tensor
    before: float
    after: float
    variance: float


def _fitted(gram: Gram, old: Tensor, movable: bool) -> _Fit:
    xx, xy, yy = gram.xx / gram.rows, gram.xy / gram.rows, gram.yy / gram.rows
    new = fit(xx, xy, old, ridge_of(xx, gram.rows), intercept=movable)
    variance = float((yy - xy[-1].square()).sum())
    return _Fit(new, _error(xx, xy, yy, old), _error(xx, xy, yy, new), variance)


def _pair(before: Captured, after: Captured) -> Mapping[fx.Node, fx.Node]:
    """Operations of the narrowed graph to those of the original; parts that were hung on are left out."""
    old, new = _own_operations(before), _own_operations(after)
    if [str(n.target) for n in old] != [str(n.target) for n in new]:
        raise UnsupportedOperation(
            "reconstruct",
            wanted="the same operations in the narrowed model as in the original",
            found="a model whose code takes another path at other widths",
            do="Switch it off: reconstruct=False.",
        )
    return dict(zip(new, old, strict=True))


def _own_operations(captured: Captured) -> list[fx.Node]:
    """Inputs, parameters and operations of the user's own model."""
    found = [n for n in captured.graph.nodes if n.op != "output" and not part_of(n)]
    return [n for n in found if n.op != "placeholder" or not n.users or not all(map(part_of, n.users))]


def _changed(captured: Captured, plan: PrunePlan, projected: Collection[str] = ()) -> set[fx.Node]:
    """Operations whose remaining values change: something that they sum over has gone, or their weight is
    projected."""
    inputs_cut = {s.param for s in plan.slices if s.axis > 0}
    narrower = {n for n in captured.graph.nodes if captured.param_of(n) in {s.param for s in plan.slices}}
    changed: set[fx.Node] = set()
    for node in captured.graph.nodes:
        if node.op != "call_function":
            continue
        sources = node.all_input_nodes
        if any(s in narrower for s in sources):
            narrower.add(node)
        cut = any(captured.param_of(s) in inputs_cut or captured.param_of(s) in projected for s in sources)
        sums = packet(node).startswith("conv_transpose") or rule_for(node) in _OVER_CHANNELS
        sums = sums or part_of(node) == "ScatterChannels"
        if cut or any(s in changed for s in sources) or (sums and node in narrower):
            changed.add(node)
    return changed
