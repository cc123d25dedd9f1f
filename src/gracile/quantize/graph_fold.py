"""Batch norms of a captured graph multiplied into the layers before them; what they knew is kept.

The arithmetic is that of ``gracile.surgery.fold_norm`` (Jacob et al., arXiv 1712.05877, equation 14). The
output of a folded layer has mean ``beta`` and standard deviation ``|gamma|`` on the training data (Nagel et
al., arXiv 1906.04721, section 4.1.2), which is all that quantization without data goes by.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn

from gracile.records import FoldPair, Skipped
from gracile.surgery import NormNumbers, fold_norm

from .lower import argument, fetch, op_name

_FOLDS = frozenset({"linear", *(f"conv{way}{n}d" for way in ("", "_transpose") for n in (1, 2, 3))})


@dataclass(kw_only=True)
class Folded:
    """``known``: node name to mean and standard deviation of its output channels."""

    pairs: list[FoldPair] = field(default_factory=list)
    known: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


def fold_norms_(module: fx.GraphModule) -> Folded:
    """Fold every batch norm whose input comes straight from a layer that runs once; in place.

    Example:
        >>> import torch
        >>> from gracile.quantize.lower import lower
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
        >>> graph = lower(net, (torch.zeros(1, 1, 5, 5),))
        >>> folded = fold_norms_(graph)
        >>> [(p.layer, p.norm) for p in folded.pairs], [m.tolist() for m in folded.known["conv2d"]]
        ([('0', '1')], [[0.0, 0.0], [1.0, 1.0]])
        >>> [op_name(n) for n in graph.graph.nodes if n.op == "call_function"]
        ['conv2d', 'relu']
    """
    found = Folded()
    reads: dict[str, int] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            reads[str(node.target)] = reads.get(str(node.target), 0) + len(node.users)
    for node in list(module.graph.nodes):
        if op_name(node) == "batch_norm":
            _fold(module, node, reads, found)
    module.graph.lint()
    module.recompile()
    return found


def _fold(module: fx.GraphModule, node: fx.Node, reads: dict[str, int], found: Folded) -> None:
    norm = str(getattr(argument(node, "running_mean"), "target", node.name)).removesuffix(".running_mean")
    numbers = _numbers(module, node)
    if numbers is None:
        found.skipped.append(Skipped(norm, "it normalises by the batch at hand"))
        return
    known = (numbers.shift.float(), (numbers.slope.abs() * (numbers.var + numbers.eps).sqrt()).float())
    why = _obstacle(node, reads)
    if why:
        found.skipped.append(Skipped(norm, why))
        found.known[node.name] = known
        return
    layer = node.args[0]
    assert isinstance(layer, fx.Node)
    weight: Any = layer.args[1]
    bias = argument(layer, "bias")
    old = fetch(module, str(weight.target))
    new_weight, new_bias = fold_norm(
        old,
        None if bias is None else fetch(module, str(bias.target)),
        numbers,
        groups=int(argument(layer, "groups", 1)),
        transposed="transpose" in op_name(layer),
    )
    set_parameter_(module, str(weight.target), new_weight.to(old.dtype))
    set_bias_(module, layer, new_bias.to(old.dtype))
    node.replace_all_uses_with(layer)
    module.graph.erase_node(node)
    found.pairs.append(FoldPair(layer=str(weight.target).removesuffix(".weight"), norm=norm))
    found.known[layer.name] = known


def set_parameter_(module: nn.Module, name: str, value: Tensor) -> None:
    """Give a dotted name a new parameter, whatever was there."""
    owner, _, last = name.rpartition(".")
    holder = module.get_submodule(owner)
    if hasattr(holder, last):
        delattr(holder, last)
    holder.register_parameter(last, nn.Parameter(value.detach().clone(), requires_grad=False))


def set_bias_(module: fx.GraphModule, layer: fx.Node, value: Tensor) -> None:
    """Give a layer a bias, whether it had one or not."""
    weight, bias = layer.args[1], argument(layer, "bias")
    assert isinstance(weight, fx.Node)
    name = _bias_name(str(weight.target)) if bias is None else str(bias.target)
    set_parameter_(module, name, value)
    if bias is None:
        with module.graph.inserting_before(layer):
            bias = module.graph.get_attr(name)
        bias.meta["val"] = value
        layer.args = (*layer.args[:2], bias, *layer.args[3:])
        layer.kwargs = {key: v for key, v in layer.kwargs.items() if key != "bias"}


def _bias_name(weight: str) -> str:
    """For a layer that has none: next to its weight, which may be the parameter of no layer's module."""
    name = weight.removesuffix(".weight")
    return f"{weight}_added_bias" if name == weight else f"{name}.bias"


def _obstacle(node: fx.Node, reads: dict[str, int]) -> str:
    """Why a norm cannot be folded, "" where it can."""
    layer = node.args[0]
    assert isinstance(layer, fx.Node)
    if op_name(layer) not in _FOLDS:
        return f"its input comes from {op_name(layer) or layer.name}, not from a convolution or linear layer"
    if len(layer.users) != 1:
        return f"the output of {layer.name} is also used without the norm"
    parts: list[Any] = [part for part in (layer.args[1], argument(layer, "bias")) if part is not None]
    if any(not isinstance(part, fx.Node) or part.op != "get_attr" for part in parts):
        return f"the weights of {layer.name} are computed"
    if any(reads[str(part.target)] != 1 for part in parts):
        return f"{layer.name} runs more than once, or shares its parameters"
    return ""


def _numbers(module: fx.GraphModule, node: fx.Node) -> NormNumbers | None:
    def tensor(name: str) -> Tensor | None:
        part = argument(node, name)
        stored = isinstance(part, fx.Node) and part.op == "get_attr"
        return fetch(module, str(part.target)).detach() if stored else None

    mean, var = tensor("running_mean"), tensor("running_var")
    if argument(node, "training") or mean is None or var is None:
        return None
    return NormNumbers(
        mean=mean, var=var, eps=float(argument(node, "eps")), gamma=tensor("weight"), beta=tensor("bias")
    )
