"""Residual branches of a captured model, and their removal from the user's own modules.

A branch is what only one summand of a sum depends on. Once it is gone the sum is its other summand. The
modules of the branch make way for stand-ins, so that the user's ``forward`` runs as it is written; whether
it does, and gives what the graph without the branch gives, is tried on the model itself.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.optim import Optimizer

from gracile.errors import BadArgument
from gracile.graph import Captured, capture, cost, evaluating
from gracile.graph.rules import packet, shape_of
from gracile.nn import ZeroBranch
from gracile.records import Branch, Proof, Skipped

from .reference import arguments_of
from .verify import Stage, flat, run

_WEIGHTED = ("conv", "linear", "matmul", "mm", "bmm", "scaled_dot_product_attention")


def find_branches(
    model: nn.Module, inputs: tuple[Tensor, ...], *, seed: int = 0
) -> tuple[tuple[Branch, ...], tuple[Skipped, ...]]:
    """Branches that can go one by one, and those that cannot with the reason.

    Where both summands hold weights (a block and its projecting shortcut), the one with more multiply-adds is
    the branch.

    Args:
        model: The model; left as it was.
        inputs: Example inputs; one image, so that costs are those of one image.
        seed: Of the inputs that the removal is tried on.

    Raises:
        CaptureError: The model cannot be captured.

    Example:
        >>> class Block(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.conv = nn.Conv2d(4, 4, 3, padding=1)
        ...     def forward(self, x):
        ...         return self.conv(x).relu() + x
        >>> import torch
        >>> [b.name for b in find_branches(Block(), (torch.zeros(1, 4, 8, 8),))[0]]
        ['conv']
    """
    captured = capture(model, inputs)
    costs = cost(model, inputs)
    macs = {layer.name: layer.macs for layer in costs.layers}
    stage = Stage(model, inputs, seed)
    again = capture(stage.model, stage.inputs)  # its types are those of the stage
    found: list[Branch] = []
    skipped: list[Skipped] = []
    for node in captured.graph.nodes:
        sides = [s for s in _sides(captured, node) if s.weighted]
        sides.sort(key=lambda side: -sum(_within(name, side.modules, macs) for name in macs))
        for side in sides[:1]:
            branch = _branch(model, captured, side, macs)
            proofs: list[Proof] = []
            for form in () if branch is None else (branch, replace(branch, whole=True)):
                proofs.append(_prove(stage, again, [side], [form]))
                if proofs[-1].passed:
                    found.append(form)
                    break
            if not proofs or not proofs[-1].passed:
                why = proofs[0].detail if proofs else "no module gives this summand"
                skipped.append(Skipped(captured.module_of(node) or node.name, why, captured.source(node)))
    names = [branch.name for branch in found]
    unique = tuple(b if names.count(b.name) == 1 else replace(b, name=b.end) for b in found)
    return unique, tuple(skipped)


def remove_branches_(
    model: nn.Module, branches: Sequence[Branch], optimizer: Optimizer | None = None
) -> nn.Module:
    """Take ``branches`` out of ``model``, in place.

    Args:
        model: The model that the branches were found in.
        branches: What goes.
        optimizer: Forgets the parameters that go, and their state.

    Raises:
        BadArgument: The model has no such module; nothing has been changed.
    """
    names = [name for b in branches for name in (*b.inner, b.end)]
    known = dict(model.named_modules())
    for name in names:
        if name not in known:
            raise BadArgument(
                name, wanted="a module of the model", found="no such name", do="Make the plan anew."
            )
    before = {id(p) for p in model.parameters()}
    for branch in branches:
        for name in branch.inner:
            model.set_submodule(name, nn.Identity())
        model.set_submodule(branch.end, ZeroBranch(branch.rank, branch.whole))
    if optimizer is not None:
        gone = before - {id(p) for p in model.parameters()}
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in gone]
        for parameter in [p for p in optimizer.state if id(p) in gone]:
            del optimizer.state[parameter]
    return model


def prove_removal(
    model: nn.Module, inputs: tuple[Tensor, ...], branches: Sequence[Branch], *, seed: int = 0
) -> Proof:
    """Compare the model without ``branches`` with its graph in which their sums are the other summands.

    Raises:
        BadArgument: The model has no such branch.
        CaptureError: The model cannot be captured.
    """
    stage = Stage(model, inputs, seed)
    captured = capture(stage.model, stage.inputs)
    sides = []
    for branch in branches:
        every = (side for node in captured.graph.nodes for side in _sides(captured, node) if side.weighted)
        side = next((s for s in every if _end(s) == branch.end), None)
        if side is None:
            raise BadArgument(branch.name, wanted="a residual branch", found="none", do="Make the plan anew.")
        sides.append(side)
    return _prove(stage, captured, sides, branches)


class _Side:
    """One summand of a sum: its own nodes, and the modules that lie wholly among them."""

    def __init__(self, captured: Captured, total: fx.Node, operand: fx.Node, other: fx.Node) -> None:
        self.total, self.operand, self.other = total, operand, other
        shared = _behind(other) | {other}
        nodes = [n for n in (*_behind(operand), operand) if n not in shared and n.op == "call_function"]
        self.nodes = set(nodes)
        self.closed = operand in self.nodes and all(
            user in self.nodes or user is total for n in self.nodes for user in n.users
        )
        self.closed &= _fed(captured, shared)  # unlike a sum with a parameter
        self.constant = {n for n in self.nodes if not _fed(captured, _behind(n))}
        self.weighted = self.closed and any(packet(n).startswith(_WEIGHTED) for n in nodes)
        self.modules = _whole_modules(captured, self.nodes) if self.weighted else frozenset()


def _sides(captured: Captured, node: fx.Node) -> list[_Side]:
    if node.op != "call_function" or packet(node) != "add" or node.kwargs.get("alpha", 1) != 1:
        return []
    operands = [a for a in node.args[:2] if isinstance(a, fx.Node) and shape_of(a) == shape_of(node)]
    if len(operands) != 2 or operands[0] is operands[1]:
        return []
    a, b = operands
    return [_Side(captured, node, a, b), _Side(captured, node, b, a)]


def _behind(node: fx.Node) -> set[fx.Node]:
    """All nodes that ``node`` is computed from."""
    found: set[fx.Node] = set()
    stack = list(node.all_input_nodes)
    while stack:
        at = stack.pop()
        if at not in found:
            found.add(at)
            stack += at.all_input_nodes
    return found


def _fed(captured: Captured, nodes: set[fx.Node]) -> bool:
    """Whether an input of the model is among ``nodes``."""
    inputs = (n for n in nodes if n.op == "placeholder" and captured.param_of(n) is None)
    return any(captured.constant_of(n) is None for n in inputs)


def _stack(node: fx.Node) -> list[str]:
    """Dotted names of the modules that ran ``node``, outermost first."""
    return [str(path) for path, _ in (node.meta.get("nn_module_stack") or {}).values()]


def _whole_modules(captured: Captured, nodes: set[fx.Node]) -> frozenset[str]:
    """Outermost modules all of whose operations are among ``nodes``."""
    inside: set[str] = set()
    outside: set[str] = {""}
    for n in captured.graph.nodes:
        if n.op == "call_function":
            (inside if n in nodes else outside).update(_stack(n))
    whole = inside - outside
    return frozenset(m for m in whole if not any(m.startswith(f"{other}.") for other in whole))


def _within(layer: str, modules: frozenset[str], macs: Mapping[str, int]) -> int:
    name = layer.partition(":")[0]
    return macs[layer] if any(name == m or name.startswith(f"{m}.") for m in modules) else 0


def _branch(model: nn.Module, captured: Captured, side: _Side, macs: Mapping[str, int]) -> Branch | None:
    """The branch as plain data; None where no module of its own gives the summand."""
    end = _end(side)
    if end is None:
        return None
    held = {m for m in side.modules if any(True for _ in model.get_submodule(m).parameters())}
    inner = tuple(m for m, _ in model.named_modules() if m in held and m != end)
    params = {id(p): p.numel() for m in (*inner, end) for p in model.get_submodule(m).parameters()}
    first = next((m for m, _ in model.named_modules() if m in held), end)
    return Branch(
        name=_name(inner, end) or first,
        end=end,
        rank=len(shape_of(side.operand)),
        inner=inner,
        macs=sum(_within(layer, side.modules, macs) for layer in macs),
        params=sum(params.values()),
    )


def _end(side: _Side) -> str | None:
    """The module that gives the summand; operations on it alone (a scale) are looked through."""
    node = side.operand
    while True:
        owner = next((m for m in _stack(node) if m in side.modules), None)
        if owner is not None:
            return owner
        sources = [n for n in node.all_input_nodes if n in side.nodes and n not in side.constant]
        if len(sources) != 1:
            return None
        node = sources[0]


class _Shortened(fx.Interpreter):
    """A graph in which some sums are one of their summands."""

    def __init__(self, graph: fx.GraphModule, summands: Mapping[str, str]) -> None:
        super().__init__(graph)
        self.garbage_collect_values = False  # summands are read after their last use in the graph
        self.summands = summands
        self.names = {n.name: n for n in graph.graph.nodes}

    def run_node(self, n: fx.Node) -> Any:
        summand = self.summands.get(n.name)
        return super().run_node(n) if summand is None else self.env[self.names[summand]]


def _without(stage: Stage, captured: Captured, sides: Sequence[_Side]) -> list[Tensor]:
    """Outputs of the captured graph without the branches."""
    shortened = _Shortened(
        captured.program.graph_module, {side.total.name: side.other.name for side in sides}
    )
    with evaluating(stage.model), torch.no_grad():
        return flat(shortened.run(*arguments_of(captured, stage.model, stage.inputs)))


def _name(inner: tuple[str, ...], end: str) -> str:
    """The module that all of the branch lies in, or the branch's only module."""
    if not inner:
        return end
    parts = [name.split(".") for name in (*inner, end)]
    common: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return ".".join(common)


def _prove(stage: Stage, captured: Captured, sides: Sequence[_Side], branches: Sequence[Branch]) -> Proof:
    """Compare the model without branches with its graph in which their sums are the other summands."""
    wanted = _without(stage, captured, sides)
    small = remove_branches_(copy.deepcopy(stage.model), branches)
    try:
        found = run(small, stage.inputs)
    except Exception as failure:
        why = f"the model's own code fails without it: {type(failure).__name__}: {failure}"[:300]
        return Proof(name="branches removed", passed=False, error=float("inf"), tolerance=stage.tolerance,
                     detail=why)  # fmt: skip
    proof = stage.proof("branches removed", found, wanted, stage.base)
    return proof if proof.passed else replace(proof, detail="the model without it computes something else")
