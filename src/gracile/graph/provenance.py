"""Channel provenance: which entries of which parameters must go together.

The captured graph is run on labels instead of numbers (``rules``); labels that meet are tied; the connected
components are the groups. A removal is valid when, in every tensor of the graph, what goes is a product of
per-axis selections (the *box test*): where a tensor's labels vary along several axes at once they are tied
along all but the axis that leaves the most freedom, until every tensor passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, fx

from gracile.errors import BadArgument
from gracile.records import Cost, ParamSlice, Rewire, Skipped

from .capture import Captured
from .copies import Copies, repeat_runs
from .cost import cost_of
from .groups import Group, build_groups
from .labels import Freeze, Labels, Plane, along, core, shrink, varying
from .rules import RULES, Context, Result, Rule, packet, rule_for, shape_of
from .values import Value, value

FACTORIES = frozenset(
    ["new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like", "empty_like"]
)
LARGEST_CONCRETE = 1 << 24  # entries of a constant that is worked out; larger ones freeze what they meet


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Groups of a captured model, and what a removal does to every tensor of its graph."""

    captured: Captured
    groups: tuple[Group, ...]
    frozen: tuple[Skipped, ...]
    shrinking: tuple[fx.Node, ...]
    _component: np.ndarray
    _axes: Mapping[str, Mapping[int, tuple[np.ndarray, ...]]] = field(repr=False)
    _params: Mapping[tuple[str, int], np.ndarray] = field(repr=False)
    cuts: tuple[Rewire, ...] = ()
    """Where branches are cut off a trunk; groups named by them go alone."""

    def group(self, name: str) -> Group:
        """The group called ``name``.

        Raises:
            BadArgument: There is none.
        """
        for found in self.groups:
            if found.name == name:
                return found
        raise BadArgument(name, wanted=f"one of {len(self.groups)} groups", found="no such group",
                          do="List them with `gracile inspect`.")  # fmt: skip

    def gone(self, removed: Mapping[str, Sequence[int]]) -> np.ndarray:
        """Which components go: a mask over component numbers. Of a cut that masks, none goes."""
        masked = {c.group for c in self.cuts if c.kind == "mask"}
        mask = np.zeros(int(self._component.max(initial=0)) + 1, dtype=bool)
        for name, units in removed.items():
            if name in masked:
                continue
            mask[self.group(name).components[np.asarray(units, dtype=np.int64)]] = True
        return mask

    def slices(self, removed: Mapping[str, Sequence[int]]) -> tuple[ParamSlice, ...]:
        """Parameter slices that carry out a removal of units, ``{group name: unit indices}``."""
        gone = self.gone(removed)
        found = []
        for (param, axis), component in self._params.items():
            out = gone[component]
            if out.any():
                keep = tuple(int(i) for i in np.flatnonzero(~out))
                found.append(ParamSlice(param=param, axis=axis, size=component.size, keep=keep))
        return tuple(found)

    def rewires(self, removed: Mapping[str, Sequence[int]]) -> tuple[Rewire, ...]:
        """Parts to hang on the model for a removal from groups that were cut off."""
        found = []
        for cut in self.cuts:
            gone = {int(u) for u in removed.get(cut.group, ())}
            if gone:
                group = self.group(cut.group)
                places = group.scored[0].index[:, 0]
                lost = {int(places[u]) for u in gone}
                keep = tuple(i for i in range(cut.size) if i not in lost)
                found.append(replace(cut, keep=keep))
        return tuple(found)

    def kept(self, node: str, gone: np.ndarray) -> dict[int, np.ndarray]:
        """Per axis of the node's output that shrinks: indices that stay."""
        result: dict[int, np.ndarray] = {}
        for axis, vectors in self._axes.get(node, {}).items():
            out = np.zeros(vectors[0].size, dtype=bool)
            for vector in vectors:
                out |= gone[vector]
            if out.any():
                result[axis] = np.flatnonzero(~out)
        return result

    def times(self, counts: Mapping[str, Sequence[int]]) -> np.ndarray:
        """How often each component stands once units are repeated, ``{group name: copies of each}``."""
        found = np.ones(int(self._component.max(initial=0)) + 1, dtype=np.int64)
        for name, copies in counts.items():
            found[self.group(name).components] = np.asarray(copies, dtype=np.int64)
        return found

    def repeated(self, node: str, times: np.ndarray) -> dict[int, Copies]:
        """Per axis of the node's output that grows: where its entries come from."""
        axes = self._axes.get(node, {})
        return {
            axis: repeat_runs(vectors, times)
            for axis, vectors in axes.items()
            if any((times[vector] > 1).any() for vector in vectors)
        }

    def repeated_parameters(self, times: np.ndarray) -> dict[tuple[str, int], Copies]:
        """Per parameter and axis that grows: where its entries come from."""
        grown = {key: c for key, c in self._params.items() if (times[c] > 1).any()}
        return {key: repeat_runs([component], times) for key, component in grown.items()}

    def groups_at(self, node: str) -> tuple[str, ...]:
        """Names of the groups whose channels appear in the node's output."""
        seen = [np.unique(v) for vectors in self._axes.get(node, {}).values() for v in vectors]
        present = set(np.concatenate(seen).tolist()) if seen else set()
        return tuple(g.name for g in self.groups if present & set(g.components.tolist()))

    def places(self, node: str, group: Group) -> tuple[int, np.ndarray] | None:
        """Where a group's channels are in a node's output: an axis, and for each of its entries the unit.

        Entries that belong to no unit of the group are -1; None where the group does not appear.
        """
        for axis, vectors in self._axes.get(node, {}).items():
            for vector in vectors:
                order = np.argsort(group.components)
                at = np.searchsorted(group.components[order], vector).clip(max=group.units - 1)
                unit = np.where(group.components[order][at] == vector, order[at], -1)
                if (unit >= 0).any():
                    return axis, unit
        return None

    def cost(self, removed: Mapping[str, Sequence[int]] | None = None) -> Cost:
        """Cost of the model after a removal, by formula."""
        gone = self.gone(removed or {})
        sizes = {key: int((~gone[c]).sum()) for key, c in self._params.items() if gone[c].any()}
        return cost_of(
            self.captured, lambda node: {a: k.size for a, k in self.kept(node, gone).items()}, sizes
        )


def trace(captured: Captured, rules: Mapping[str, Rule] = RULES, cuts: Sequence[Rewire] = ()) -> Provenance:
    """Find the groups of ``captured``.

    Args:
        captured: A captured model.
        rules: How labels pass through operations; extend with ``RULES | {"my_op": my_rule}``.
        cuts: Modules whose outputs (``scatter``, ``mask``) or inputs (``gather``) form groups of their own,
            apart from what they are added to or read.

    Example:
        >>> from torch import nn
        >>> from gracile.graph import capture
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> [(g.name, g.units) for g in trace(capture(net, (torch.zeros(1, 4),))).groups]
        [('0', 8)]
    """
    cuts = tuple(c for c in cuts if c.kind != "border")
    ctx, shown, params = _interpret(captured, rules, cuts)
    multi = [p for v in _values(ctx.env.values()) for p in v.planes if len(varying(p)) > 1]
    component, why = _settle(ctx.labels, multi)
    axes = _axes(shown, component)
    frozen_mask = np.zeros(int(component.max(initial=0)) + 1, dtype=bool)
    frozen_mask[list(why)] = True
    frozen_mask[component[0]] = True
    roles = _roles(ctx, component.size)
    by_param = {key: component[block.numpy()] for key, block in params.items()}
    consumed = np.zeros_like(frozen_mask)
    for vector in ctx.consumed:
        consumed[component[vector.reshape(-1).numpy()]] = True
    labels = {k: b.numpy() for k, b in params.items()}
    gathered = {f"{c.layer}.weight" for c in cuts if c.kind == "gather"}
    groups, alone = build_groups(by_param, labels, roles, frozen_mask, consumed, gathered)
    return Provenance(
        captured=captured,
        groups=groups,
        frozen=(*_reasons(captured, by_param, roles, params, why), *alone, *_idle(captured)),
        shrinking=tuple(ctx.shrinking),
        cuts=cuts,
        _component=component,
        _axes=axes,
        _params=by_param,
    )


def _interpret(
    captured: Captured, rules: Mapping[str, Rule], cuts: Sequence[Rewire]
) -> tuple[Context, dict[fx.Node, Result], dict[tuple[str, int], Tensor]]:
    """Run the graph on labels; the second result holds the labels of ends that are cut off too."""
    last = {c.module: _last_operation(captured, c.module) for c in cuts}
    gathered = frozenset(last[c.module].name for c in cuts if c.kind == "gather")
    ends = {last[c.module] for c in cuts if c.kind in ("scatter", "mask")}
    ctx, whole = Context(Labels(), {}, gathered=gathered), {}
    params: dict[tuple[str, int], Tensor] = {}
    for node in captured.graph.nodes:
        if node.op == "placeholder":
            ctx.env[node] = _placeholder(captured, node, ctx.labels, params)
        elif node.op == "call_function":
            ctx.env[node] = _call(ctx, node, rules)
            if node in ends:
                whole[node] = ctx.get(node)
                ctx.consumed += [along(p, 1) for p in whole[node].planes]
                ctx.env[node] = Value(shape_of(node))
        elif node.op == "output":
            for source in node.all_input_nodes:
                for p in ctx.get(source).planes:
                    ctx.labels.freeze(p, "is an output of the network", node.name)
    return ctx, {**ctx.env, **whole}, params


def _last_operation(captured: Captured, module: str) -> fx.Node:
    """The convolution or batch norm that a module runs."""
    found = [n for n in captured.graph.nodes if n.op == "call_function" and captured.module_of(n) == module]
    found = [n for n in found if packet(n).startswith(("conv", "batch_norm", "linear"))]
    if len(found) != 1:
        raise BadArgument(module, wanted="a module that runs one convolution or batch norm, once",
                          found=f"{len(found)}", do="Make the plan anew for this model.")  # fmt: skip
    last: fx.Node = found[0]
    return last


def _values(results: Iterable[Result]) -> Iterable[Value]:
    for found in results:
        for v in found if isinstance(found, tuple) else (found,):
            if v is not None:
                yield v


def _placeholder(
    captured: Captured, node: fx.Node, labels: Labels, params: dict[tuple[str, int], Tensor]
) -> Value | None:
    val = node.meta.get("val")
    if not isinstance(val, Tensor):
        return None
    name, constant = captured.param_of(node), captured.constant_of(node)
    if constant is not None:
        return Value(tuple(constant.shape), (), constant.detach().cpu().clone())
    if name is None:
        return Value(shape_of(node))
    if not val.dtype.is_floating_point:
        held = captured.program.state_dict.get(name, captured.program.constants.get(name))
        return Value(shape_of(node), (), held.detach().cpu().clone() if isinstance(held, Tensor) else None)
    planes = []
    for axis, size in enumerate(val.shape):
        if size > 1:
            params[name, axis] = labels.block(name, axis, int(size))
            shape = [1] * val.dim()
            shape[axis] = -1
            planes.append(params[name, axis].view(shape).expand(tuple(val.shape)))
    return value(tuple(val.shape), planes)


def _call(ctx: Context, node: fx.Node, rules: Mapping[str, Rule]) -> Result:
    known = _concrete(ctx, node)
    if known is not None:
        return known
    try:
        return rule_for(node, rules)(ctx, node)
    except (RuntimeError, IndexError, NotImplementedError) as error:
        for source in node.all_input_nodes:
            for p in ctx.get(source).planes:
                ctx.labels.freeze(
                    p, f"goes into {node.target}, whose labels failed: {error}"[:200], node.name
                )
        val = node.meta.get("val")
        if isinstance(val, list | tuple):
            return tuple(Value(tuple(t.shape)) for t in val)
        return Value(shape_of(node))


def _concrete(ctx: Context, node: fx.Node) -> Result:
    """Work out constants (index tables, masks): operations whose tensor inputs are all known numbers."""
    inputs, val = node.all_input_nodes, node.meta.get("val")
    factory = packet(node) in FACTORIES
    if isinstance(val, Tensor) and val.numel() > LARGEST_CONCRETE:
        return None
    numbers: dict[fx.Node, Any] = {}
    for source in inputs:
        found = ctx.env.get(source)
        if (
            isinstance(found, tuple)
            and found
            and all(v is not None and v.concrete is not None for v in found)
        ):
            numbers[source] = [v.concrete for v in found if v is not None]
        elif isinstance(found, Value) and found.concrete is not None:
            numbers[source] = found.concrete
        elif factory:
            numbers[source] = torch.zeros(()).expand(ctx.get(source).shape)
        else:
            return None
    if not inputs and not isinstance(val, Tensor):
        return None
    args: Any = fx.node.map_arg(node.args, lambda n: numbers[n])
    kwargs: Any = fx.node.map_arg(node.kwargs, lambda n: numbers[n])
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # the model's own random numbers
        out = node.target(*args, **kwargs)  # type: ignore[operator]
    if isinstance(out, list | tuple):
        return tuple(Value(tuple(t.shape), (), t) for t in out)
    return Value(tuple(out.shape), (), out) if isinstance(out, Tensor) else Value(())


def _settle(labels: Labels, multi: list[Plane]) -> tuple[np.ndarray, dict[int, list[Freeze]]]:
    """Tie labels until every tensor passes the box test; return components and why some are frozen."""
    for _ in range(64):
        component, why = labels.components()
        frozen = np.zeros(int(component.max(initial=0)) + 1, dtype=bool)
        frozen[list(why)] = True
        frozen[component[0]] = True
        table = torch.from_numpy(np.where(frozen[component], 0, component + 1).astype(np.int64))
        settled = True
        for plane in multi:
            small = core(plane)
            seen = shrink(table[small])
            axes = varying(seen)
            if len(axes) > 1:
                settled = False
                best = max(axes, key=lambda d: (_freedom(core(seen), d), d))
                for d in axes:
                    if d != best:
                        labels.tie(small, small.narrow(d, 0, 1), "box test")
        if settled:
            return component, why
    raise AssertionError("the box test did not settle")  # each round ties something, so it must


def _freedom(seen: Tensor, axis: int) -> int:
    """How many free components remain when a tensor's labels are tied along every axis but ``axis``."""
    rows = seen.movedim(axis, 0).reshape(seen.size(axis), -1)
    n, count = rows.size(0), int(rows.max()) + 1
    slab = torch.arange(n)[:, None].expand_as(rows).reshape(-1).numpy()
    labels = rows.reshape(-1).numpy()
    graph = coo_matrix((np.ones(slab.size, dtype=np.int8), (slab, n + labels)), shape=(n + count, n + count))
    _, component = connected_components(graph, directed=False)
    present = set(component[:n].tolist())
    if (labels == 0).any():
        present.discard(int(component[n]))
    return len(present)


def _axes(
    env: Mapping[fx.Node, Result], component: np.ndarray
) -> dict[str, dict[int, tuple[np.ndarray, ...]]]:
    """Per node and axis, the component vectors of its output (of one with one output)."""
    table = torch.from_numpy(component.astype(np.int64))
    found: dict[str, dict[int, tuple[np.ndarray, ...]]] = {}
    for node, result in env.items():
        if isinstance(result, Value):
            per_axis: dict[int, tuple[np.ndarray, ...]] = {}
            for plane in result.planes:
                seen = plane if len(varying(plane)) == 1 else shrink(table[core(plane)].expand(plane.shape))
                for axis in varying(seen)[:1]:
                    vector = core(seen).reshape(-1)
                    vector = table[vector] if seen is plane else vector
                    per_axis[axis] = (*per_axis.get(axis, ()), vector.numpy())
            if per_axis:
                found[node.name] = per_axis
    return found


def _idle(captured: Captured) -> tuple[Skipped, ...]:
    """Modules whose parameters do not run in evaluation mode (auxiliary heads): they are not in the graph."""
    state = captured.program.state_dict
    names = {n: captured.param_of(n) for n in captured.graph.nodes if n.op == "placeholder"}
    floats = {n: str(p) for n, p in names.items() if p and n.meta["val"].dtype.is_floating_point}
    read = {id(state[p]) for n, p in floats.items() if n.users and p in state}
    running = {a for n, p in floats.items() if n.users for a in _ancestors(p)}
    still = [p for n, p in floats.items() if not n.users and id(state.get(p)) not in read]
    idle = dict.fromkeys(next(a for a in _ancestors(p) if a not in running) for p in still)
    why = "does not run in evaluation mode; it is left as it is and may not fit what is removed before it"
    return tuple(Skipped(name, why) for name in idle)


def _ancestors(name: str) -> list[str]:
    """A dotted name's prefixes, shortest first, itself included."""
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _roles(ctx: Context, labels: int) -> np.ndarray:
    """Role of every label: 1 where an output axis writes it, 2 where an input axis reads it, else 0."""
    roles = np.zeros(labels, dtype=np.int8)
    for vector in ctx.writes:
        roles[vector.reshape(-1).numpy()] = 1
    for vector in ctx.reads:
        roles[vector.reshape(-1).numpy()] = 2
    roles[0] = 0
    return roles


def _reasons(
    captured: Captured,
    by_param: Mapping[tuple[str, int], np.ndarray],
    roles: np.ndarray,
    params: Mapping[tuple[str, int], Tensor],
    why: Mapping[int, list[Freeze]],
) -> tuple[Skipped, ...]:
    """For every output axis that is wholly or partly frozen: the first reason and the user's line."""
    nodes = {n.name: n for n in captured.graph.nodes}
    found: list[Skipped] = []
    for (param, axis), component in by_param.items():
        if roles[params[param, axis].numpy()].max(initial=0) != 1:
            continue
        stuck = [int(c) for c in np.unique(component) if int(c) in why]
        if not stuck:
            continue
        freeze = why[stuck[0]][0]
        node = nodes.get(freeze.node)
        share = float(np.isin(component, stuck).mean())
        part = "" if share == 1 else f"{share:.0%} of its channels: "
        source = captured.source(node) if node is not None else ""
        found.append(Skipped(param.removesuffix(".weight"), f"{part}{freeze.why}", source))
    return tuple(found)
