"""Fusing: pairs of layers of a model that become one, found on its graph and tried on the model itself.

What two layers become is in :mod:`gracile.fold.compose` (in a row) and :mod:`gracile.fold.merge_branches`
(added). Here pairs are found by data flow, never by names or order of registration. Before that, weights that
are computed from parameters alone become parameters, and modules that never run go
(:mod:`gracile.fold.constants`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from math import prod

from torch import Tensor, fx, nn

from gracile.graph import Captured, Trial, capture, stand_in
from gracile.graph.rules import bound, packet, shape_of
from gracile.nn import ZeroBranch
from gracile.nn.attach import parts_of
from gracile.records import FusePlan, Fusion, Skipped

from . import compose, constants, merge_branches

TOLERANCE = 1e-4  # of the largest output
_IDLE = {"dropout", "contiguous", "clone", "alias", "detach", "lift_fresh_copy"}
_FLATTENING = {"flatten", "view", "reshape", "_unsafe_view"}
_LINEAR = {"linear", "conv1d", "conv2d", "conv3d"}


def plan_fusions(
    model: nn.Module, inputs: tuple[Tensor, ...], *, always: bool = False, seed: int = 0
) -> FusePlan:
    """Find layers that become one; the model is left as it was.

    Weights that layers compute from parameters alone become parameters, and modules that hold parameters and
    never run go. Fold batch norms first: one between two layers keeps them apart. Pairs are taken one after
    the other, so that three layers in a row become one too. Each is tried: the outputs stay within 1e-4 of
    the largest.

    Args:
        model: Any model that ``torch.export`` captures.
        inputs: Example inputs, one image. A linear layer that reads the whole image of a convolution joins it
            for images of this size.
        always: Also where the layer that comes of it has more multiply-adds than the two.
        seed: Of the random inputs that fusions are tried on.

    Raises:
        CaptureError: The model cannot be captured.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
        >>> print(plan_fusions(net, (torch.zeros(1, 3, 8, 8),)))
        1 fusions, MACs of these layers 11,904 -> 3,888
          0 and 1 become one (chain)
    """
    first = _cleared(model, inputs, seed)
    small = apply_fusions(model, first)
    trial = Trial(small, inputs, seed=seed)
    fusions: list[Fusion] = []
    skipped: dict[tuple[str, str], Skipped] = {}
    found = True
    while found:
        found = False
        captured = capture(small, inputs)
        for fusion, why, where in _candidates(captured, small):
            pair = (fusion.first, fusion.second)
            if pair in skipped:
                continue
            if why is None and not always and fusion.macs_after > fusion.macs_before:
                why = f"it would take {fusion.macs_after:,} multiply-adds instead of {fusion.macs_before:,}"
            fitting = None if why is not None else _tried(trial, fusion)
            if fitting is None:
                name = f"{fusion.first}, {fusion.second}"
                skipped[pair] = Skipped(name, why or "it changes the model's outputs", where)
                continue
            small = apply_fusions(small, FusePlan(fusions=(fitting,)))
            trial = Trial(small, inputs, seed=seed)
            fusions.append(fitting)
            found = True
            break
    left = (*first.skipped, *skipped.values())
    return replace(first, fusions=tuple(fusions), skipped=left)


def apply_fusions(model: nn.Module, plan: FusePlan) -> nn.Module:
    """Return a copy of ``model`` with the planned fusions: the same outputs in evaluation mode.

    Shapes depend on the plan alone, so it also makes a model to load a fused checkpoint into.

    Raises:
        BadArgument: The plan was made for another model.
    """
    small = copy.deepcopy(model)
    for constant in plan.constants:
        constants.make_constant_(small, constant)
    for name in plan.dead:
        stand_in(small, constants.module_at(small, name), nn.Identity())
    for fusion in plan.fusions:
        first = constants.module_at(small, fusion.first)
        second = constants.module_at(small, fusion.second)
        if fusion.kind != "parallel":
            stand_in(small, first, _joined(first, second, fusion.space))
            stand_in(small, second, nn.Identity())
        else:
            stand_in(small, first, merge_branches.merged(first, second))
            stand_in(small, second, ZeroBranch(fusion.rank, fusion.whole))
    return small


def _joined(first: nn.Module, second: nn.Module, space: tuple[int, ...]) -> nn.Module:
    if space and isinstance(second, nn.Linear):
        second = compose.as_kernel(second, first, space)
    return compose.joined(first, second)


def _cleared(model: nn.Module, inputs: tuple[Tensor, ...], seed: int) -> FusePlan:
    """Constant weights and dead modules that can be carried out without changing the outputs."""
    captured = capture(model, inputs)
    whole = FusePlan(
        fusions=(),
        constants=constants.find_constants(captured, model),
        dead=constants.find_dead(captured, model),
    )
    trial = Trial(model, inputs, seed=seed)
    if _keeps(trial, whole):
        return whole
    good, left = FusePlan(fusions=()), []
    for constant in whole.constants:
        more = replace(good, constants=(*good.constants, constant))
        good, fits = (more, True) if _keeps(trial, more) else (good, False)
        left += [] if fits else [Skipped(constant.layer, "its weight as a constant changes the outputs")]
    for name in whole.dead:
        more = replace(good, dead=(*good.dead, name))
        good, fits = (more, True) if _keeps(trial, more) else (good, False)
        left += [] if fits else [Skipped(name, "the model's own code needs it")]
    return replace(good, skipped=tuple(left))


def _candidates(captured: Captured, model: nn.Module) -> Iterator[tuple[Fusion, str | None, str]]:
    """Pairs by data flow, with the reason against them, and the source line."""
    named = {node: name for node in captured.graph.nodes if (name := _layer(captured, model, node))}
    for node, name in named.items():
        before, flat = _before(node) if packet(node) in _LINEAR else (None, False)
        if before is not None and before in named:
            yield _chain(model, named[before], name, before, node, captured, flat)
    for node, name in named.items():
        root = _sum_of(node)
        for other, second in named.items():
            same = other is not node and bound(other)["input"] is bound(node)["input"]
            if root is None or not same or _sum_of(other) is not root:
                continue
            if packet(node) != "batch_norm" and shape_of(node) == shape_of(other) == shape_of(root):
                yield _parallel(model, name, second, node, captured)


def _layer(captured: Captured, model: nn.Module, node: fx.Node) -> str | None:
    """Name of the layer or norm that a node is, where it runs once with parameters of its own."""
    if node.op != "call_function" or packet(node) not in {*_LINEAR, "batch_norm"}:
        return None
    args = bound(node)
    norm = packet(node) == "batch_norm"
    if norm and args["training"]:
        return None
    key = args["running_mean"] if norm else args["weight"]
    held = None if key is None else captured.param_of(key)
    if held is None:
        return None
    name = held.rpartition(".")[0]
    module = model.get_submodule(name)
    kinds = merge_branches.NORMS if norm else (*compose.CONVOLUTIONS, nn.Linear)
    owned = [args[part] for part in ("weight", "bias") if args.get(part) is not None]
    if type(module) not in kinds or any(len(part.users) != 1 for part in owned) or parts_of(module):
        return None
    return name


def _before(node: fx.Node) -> tuple[fx.Node | None, bool]:
    """What a layer reads, through operations that do nothing, and whether an image is laid flat on the way.

    ``None`` where others read it too.
    """
    source, flat = bound(node)["input"], False
    while isinstance(source, fx.Node) and len(source.users) == 1:
        if source.op != "call_function":
            break
        inner = source.args[0]
        lies = packet(source) in _FLATTENING and isinstance(inner, fx.Node) and _flattens(source, inner)
        if packet(source) not in _IDLE and not lies:
            return source, flat
        source, flat = inner, flat or lies
    return None, False


def _flattens(node: fx.Node, source: fx.Node) -> bool:
    """``(n, c, *space)`` to ``(n, c * positions)``."""
    given, made = shape_of(source), shape_of(node)
    return len(given) > 2 and made == (given[0], prod(given[1:]))


def _sum_of(node: fx.Node) -> fx.Node | None:
    """The whole sum that a node is a summand of, ``None`` where it is read by something else."""
    root = None
    while len(node.users) == 1:
        user = next(iter(node.users))
        if user.op != "call_function" or packet(user) != "add":
            break
        if len(user.all_input_nodes) != 2 or bound(user).get("alpha", 1) != 1:
            break
        root = node = user
    return root


def _chain(
    model: nn.Module, first: str, second: str, before: fx.Node, node: fx.Node, captured: Captured, flat: bool
) -> tuple[Fusion, str | None, str]:
    one, two = model.get_submodule(first), model.get_submodule(second)
    flat = flat and isinstance(one, compose.CONVOLUTIONS)
    between = _space(one, before) if flat else ()
    reader = compose.as_kernel(two, one, between) if flat and isinstance(two, nn.Linear) else two
    why = compose.refuses(one, reader)
    after = 0
    space = _space(two, node)
    if why is None:
        after = compose.macs(compose.joined(one, reader), space)
    total = compose.macs(one, _space(one, before)) + compose.macs(two, space)
    found = Fusion(first=first, second=second, kind="flat" if flat else "chain", space=between,
                   macs_before=total, macs_after=after)  # fmt: skip
    return found, why, captured.source(node)


def _space(layer: nn.Module, node: fx.Node) -> tuple[int, ...]:
    """Positions along each axis at which a layer gives outputs."""
    shape = tuple(shape_of(node))
    return shape[1:-1] if isinstance(layer, nn.Linear) else shape[2:]


def _parallel(
    model: nn.Module, first: str, second: str, node: fx.Node, captured: Captured
) -> tuple[Fusion, str | None, str]:
    one, two = model.get_submodule(first), model.get_submodule(second)
    why = merge_branches.refuses(one, two)
    after = total = 0
    if why is None:
        places = list(shape_of(node)[2:])
        after = compose.macs(merge_branches.merged(one, two), places)
        norm = isinstance(two, merge_branches.NORMS)
        own = prod(shape_of(node)[1:]) if norm else compose.macs(two, places)
        total = compose.macs(one, places) + own
    found = Fusion(
        first=first, second=second, kind="parallel", rank=len(shape_of(node)),
        macs_before=total, macs_after=after,
    )  # fmt: skip
    return found, why, captured.source(node)


def _tried(trial: Trial, fusion: Fusion) -> Fusion | None:
    """The fusion in the form that keeps the outputs, ``None`` where none does."""
    forms = [fusion] if fusion.kind != "parallel" else [fusion, replace(fusion, whole=True)]
    return next((form for form in forms if _keeps(trial, FusePlan(fusions=(form,)))), None)


def _keeps(trial: Trial, plan: FusePlan) -> bool:
    """Whether a plan keeps the outputs on random inputs."""
    return trial.kept_by(lambda model: apply_fusions(model, plan), TOLERANCE)
