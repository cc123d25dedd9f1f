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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from gracile.errors import NonFiniteError, UnsupportedOperation
from gracile.graph import Captured, capture, cost
from gracile.graph.rules import RULES, bound, packet, rule_for
from gracile.observe.gram import Gram
from gracile.records import PrunePlan

from .layers import MAX_COLUMNS, Layer, affine, find_layers, is_norm, own, tensors
from .least_squares import fit, ridge_of
from .walk import Calibration, Walk, chunks

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
    reestimate_bn: bool = True,
    memory_bytes: int = MEMORY_BYTES,
    seed: int = 0,
) -> tuple[Refit, ...]:
    """Refit ``small`` to ``original``, in place.

    Args:
        small: What ``plan`` left of the original; weights, biases and running means change.
        original: The model before the removal.
        plan: Tells which outputs of each layer stay.
        calibration: Unlabelled inputs.
        reestimate_bn: Correct the statistics of batch norms that follow no refitted layer (behind depthwise
            convolutions, say) as they are reached: by the difference of means and the ratio of variances that
            the two networks show on the calibration data.
        memory_bytes: Bound on the activations held; of more images than fit, the first are used.
        seed: Of the positions that are sampled in large feature maps.

    Returns:
        One record for each refitted layer, in order. Left as they are: grouped and transposed convolutions,
        layers that run more than once, and those with more than ``MAX_COLUMNS`` inputs times taps.

    Raises:
        NonFiniteError: Activations hold NaN or infinity.
        UnsupportedOperation: The narrowed model runs other operations than the original.
    """
    batches = chunks(calibration, BATCH)
    peak = cost(original, tuple(x[:1] for x in batches[0])).peak_activation_bytes
    fits = max(1, memory_bytes // (2 * max(peak, 1) * len(batches[0][0])))
    return _Lockstep(small, original, plan, batches[:fits], reestimate_bn, seed).run()


class _Lockstep:
    """The two networks, and what is known of the layers."""

    def __init__(
        self,
        small: nn.Module,
        original: nn.Module,
        plan: PrunePlan,
        batches: Sequence[tuple[Tensor, ...]],
        reestimate_bn: bool,
        seed: int,
    ) -> None:
        self.model, self.reestimate_bn = small, reestimate_bn
        before, after = capture(original, batches[0]), capture(small, batches[0])
        self.pairs = _pair(before, after)
        self.live = tensors(small)
        self.layers = find_layers(after)
        self.captured = after
        self.targets = Walk(before, tensors(original).__getitem__, batches)
        self.walk = Walk(after, self.live.__getitem__, batches, before=self._visit)
        self.keep = {s.param: torch.tensor(s.keep) for s in plan.slices if s.axis == 0}
        self.changed = _changed(after, plan)
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
        outputs = int(weight.shape[0])
        gram = Gram(layer.name, layer.columns, outputs)
        at = layer.positions(self.images, self.draw)
        for x, y in zip(self.walk(layer.source), self._wished(layer), strict=True):
            gram.update(layer.inputs(x, at), layer.outputs(y, at))
        present = weight.new_zeros(outputs) if layer.bias is None else self.live[layer.bias]
        old = torch.cat([weight.flatten(1).T, present[None]]).double().cpu()
        movable = layer.bias is not None or layer.mean is not None
        xx, xy = gram.xx / gram.rows, gram.xy / gram.rows
        new = fit(xx, xy, old, ridge_of(xx, gram.rows), intercept=movable)
        if not bool(new.isfinite().all()):
            raise NonFiniteError(layer.name, wanted="a finite least-squares fit", found="NaN or infinity",
                                 do="Give more calibration images.")  # fmt: skip
        weight.copy_(new[:-1].T.reshape(weight.shape))
        if layer.bias is not None:
            present.copy_(new[-1])
        elif layer.mean is not None:  # norm(x + b) with mean m is norm(x) with mean m - b
            self.live[layer.mean].sub_((new[-1]).to(self.live[layer.mean]))
        variance = float((gram.yy / gram.rows - xy[-1].square()).sum())
        errors = [_error(xx, xy, gram.yy / gram.rows, w) / max(variance, 1e-30) for w in (old, new)]
        return Refit(layer=layer.name, before=errors[0], after=errors[1])

    def _wished(self, layer: Layer) -> list[Tensor]:
        """Outputs that the layer should give, one tensor a batch.

        In a sum, ``(sum_original - other_small - shift) / scale``, with the norm ``y = scale x + shift``
        between.
        """
        plain = self._original(layer.node, layer)
        other = layer.other
        if layer.total is None or other is None or self._waits_on_me(other):
            return plain
        sums, others = self._original(layer.total, layer), self.walk(other)
        if sums[0].shape != others[0].shape:
            return plain
        if layer.norm is None:
            return [s - o for s, o in zip(sums, others, strict=True)]
        scale, shift = affine(self.captured, layer.norm, self.live)
        usable = scale.abs() > SMALLEST_SCALE * scale.abs().max()
        view = [1, -1, *[1] * (sums[0].dim() - 2)] if layer.window is not None else [-1]
        inverse = torch.where(usable, 1 / scale, 0.0).view(view)
        left = (~usable).to(scale.dtype).view(view)
        shift = shift.view(view)
        return [(s - o - shift) * inverse + p * left for s, o, p in zip(sums, others, plain, strict=True)]

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
        self.live[mean].add_(mean_new - mean_old)
        self.live[var].mul_(torch.where(var_old > 0, var_new / var_old.clamp_min(1e-30), 1.0))


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


def _pair(before: Captured, after: Captured) -> Mapping[fx.Node, fx.Node]:
    """Operations of the narrowed graph to those of the original."""
    old = [n for n in before.graph.nodes if n.op != "output"]
    new = [n for n in after.graph.nodes if n.op != "output"]
    if [(n.name, str(n.target)) for n in old] != [(n.name, str(n.target)) for n in new]:
        raise UnsupportedOperation(
            "reconstruct",
            wanted="the same operations in the narrowed model as in the original",
            found="a model whose code takes another path at other widths",
            do="Switch it off: reconstruct=False.",
        )
    return dict(zip(new, old, strict=True))


def _changed(captured: Captured, plan: PrunePlan) -> set[fx.Node]:
    """Operations whose remaining values the removal changes: something that they sum over has gone."""
    inputs_cut = {s.param for s in plan.slices if s.axis > 0}
    narrower = {n for n in captured.graph.nodes if captured.param_of(n) in {s.param for s in plan.slices}}
    changed: set[fx.Node] = set()
    for node in captured.graph.nodes:
        if node.op != "call_function":
            continue
        sources = node.all_input_nodes
        if any(s in narrower for s in sources):
            narrower.add(node)
        cut = any(captured.param_of(s) in inputs_cut for s in sources)
        sums = packet(node).startswith("conv_transpose") or rule_for(node) in _OVER_CHANNELS
        if cut or any(s in changed for s in sources) or (sums and node in narrower):
            changed.add(node)
    return changed
