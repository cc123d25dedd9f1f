"""Residual trunks: which branches may keep channels of their own, and which readers may look at a few.

Source: Li, Kadav, Durdanovic, Samet and Graf, "Pruning filters for efficient ConvNets", ICLR 2017, arXiv
1608.08710, section 3.3 (the coupled choice: what is added goes together); Luo, Wu and Lin, "ThiNet", ICCV
2017, arXiv 1707.06342 (trunks left whole); He, Zhang and Sun, ICCV 2017, arXiv 1707.06168, section 3.2 (a
sampler before the first convolution of a block). Where we differ: both ends of a branch are chosen, the sum
keeps its width, and ends and readers are found on the captured graph.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Literal, get_args

from torch import fx, nn

from gracile.errors import BadArgument
from gracile.graph import Captured
from gracile.graph.rules import is_pointwise, packet, shape_of
from gracile.nn import parts_of
from gracile.records import Rewire

from .layers import Layer, find_layers, is_norm, part_of

Trunk = Literal["coupled", "zero", "selective"]
TrunkChoice = Trunk | Mapping[str, Trunk]
"""One choice for all branches, or choices by patterns of layer names (``{"layer1.*": "selective"}``)."""


def trunk_cuts(model: nn.Module, captured: Captured, choice: TrunkChoice) -> tuple[Rewire, ...]:
    """Where the chosen branches are cut off their trunks.

    - ``"coupled"``: channels that are added go together, from the trunk and from every branch.
    - ``"zero"``: each branch chooses channels that it silences; nothing gets narrower.
    - ``"selective"``: each branch computes a choice of the trunk's channels, and each convolution that reads
      the trunk reads a choice; the trunk keeps its width.

    Args:
        model: The model.
        captured: The same, captured.
        choice: What to do, for all or by patterns of layer names; the first pattern that fits counts, and
            layers that none fits are coupled.

    Returns:
        A cut for each end of a branch (``scatter`` or ``mask``) and each reader (``gather``).

    Raises:
        BadArgument: The choice is not known, or a pattern fits no branch and no reader.
    """
    layers = find_layers(captured)
    found = [c for c in (_end(model, captured, x) for x in layers.values()) if c is not None]
    sums = {x.total for x in layers.values() if x.total is not None}
    for layer in layers.values():
        gather = _reader(model, captured, layer, sums)
        found += [gather] if gather is not None else []
    patterns = {"*": choice} if isinstance(choice, str) else dict(choice)
    for pattern, wanted in patterns.items():
        if wanted not in get_args(Trunk):
            raise BadArgument("trunk", wanted=f"one of {', '.join(get_args(Trunk))}", found=repr(wanted))
        if pattern != "*" and not fnmatch.filter([c.layer for c in found], pattern):
            raise BadArgument("trunk", wanted="patterns of layers that end a branch or read a trunk",
                              found=f"{pattern!r}, which fits none of {len(found)}",
                              do="List the layers with `gracile inspect`.")  # fmt: skip
    return tuple(c for c in (_chosen(cut, patterns) for cut in found) if c is not None)


def _chosen(cut: Rewire, patterns: Mapping[str, Trunk]) -> Rewire | None:
    wanted = next((w for p, w in patterns.items() if fnmatch.fnmatchcase(cut.layer, p)), "coupled")
    if wanted == "selective":
        return cut
    if wanted == "zero" and cut.kind == "scatter":
        return Rewire(layer=cut.layer, module=cut.module, kind="mask", size=cut.size)
    return None


def _end(model: nn.Module, captured: Captured, layer: Layer) -> Rewire | None:
    """A convolution, with its batch norm, that ends in an addition; no border map between."""
    if layer.total is None or layer.window is None or layer.border is not None:
        return None
    at, name = (layer.norm, layer.mean) if layer.norm is not None else (layer.node, layer.weight)
    module = _module(model, captured, at, name)
    if not module:
        return None
    return Rewire(layer=layer.name, module=module, kind="scatter", size=shape_of(layer.node)[1])


def _reader(model: nn.Module, captured: Captured, layer: Layer, sums: set[fx.Node]) -> Rewire | None:
    """A convolution whose input comes from a sum, through norms and element-by-element operations."""
    if layer.window is None or not _from_sum(layer.source, sums):
        return None
    module = _module(model, captured, layer.node, layer.weight)
    if not module:
        return None
    return Rewire(layer=layer.name, module=module, kind="gather", size=layer.channels)


def _from_sum(node: fx.Node, sums: set[fx.Node]) -> bool:
    while node not in sums:
        unary = is_pointwise(node) if node.op == "call_function" else False
        inside = part_of(node) == "GatherChannels" and packet(node) == "index_select"
        if node.op != "call_function" or not (inside or is_norm(node) or (unary and _one_source(node))):
            return False
        node = node.all_input_nodes[0]
    return True


def _one_source(node: fx.Node) -> bool:
    return len(node.all_input_nodes) == 1


def _module(model: nn.Module, captured: Captured, node: fx.Node | None, param: str | None) -> str:
    """The leaf module that ran ``node`` and holds its parameter, "" where there is none such."""
    if node is None or param is None:
        return ""
    name = captured.module_of(node)
    if name != param.rpartition(".")[0]:
        return ""
    module = model.get_submodule(name)
    return name if len(parts_of(module)) == len(module._modules) else ""
