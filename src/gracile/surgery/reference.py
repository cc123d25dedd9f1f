"""The original network as it must behave once channels are gone.

Zeroing the weights that read a channel makes it vanish from sums; a normalisation, a mean or a norm over the
channels still counts it. There the reference computes over the kept channels only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from gracile.graph import Captured, Provenance, capture
from gracile.graph.rules import bound, packet


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, the unsaved buffers included."""
    return dict(model.named_parameters(remove_duplicate=False)) | dict(
        model.named_buffers(remove_duplicate=False)
    )


def run_reference(
    provenance: Provenance, model: nn.Module, gone: np.ndarray, inputs: tuple[Tensor, ...]
) -> Any:
    """Run the captured graph with ``model``'s numbers; what goes is left out where an axis is reduced."""
    captured = recaptured(provenance.captured, model, inputs)
    graph = captured.program.graph_module
    out = _Masked(graph, provenance, gone).run(*arguments_of(captured, model, inputs))
    return out[-1] if isinstance(out, tuple) and len(out) == 1 else out


def arguments_of(captured: Captured, model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Any]:
    """What the placeholders of a captured graph take: ``model``'s numbers, constants, and ``inputs``."""
    held, fed = tensors_of(model), list(inputs)
    like = _working((*inputs, *held.values()))
    places = [n for n in captured.graph.nodes if n.op == "placeholder"]
    return [_argument(captured, node, held, fed, like) for node in places]


def as_worked(constant: Tensor, like: Tensor) -> Tensor:
    """A constant of the code for a model that works in the type and on the device of ``like``.

    Only float64 is carried over: models in half precision keep the constants that they have.

    Example:
        >>> as_worked(torch.tensor(0.5), torch.zeros(1, dtype=torch.float64)).dtype
        torch.float64
    """
    wide = like.dtype == torch.float64 and constant.is_floating_point()
    return constant.to(like.device, like.dtype if wide else constant.dtype)


def recaptured(captured: Captured, model: nn.Module, inputs: tuple[Tensor, ...]) -> Captured:
    """``captured``, or the graph anew where it names a type or a device that is not ``model``'s."""
    like = _working((*inputs, *tensors_of(model).values()))
    calls = (n for n in captured.graph.nodes if n.op == "call_function")
    leaves = [leaf for n in calls for leaf in tree_leaves((n.args, n.kwargs))]
    types = {t for t in leaves if isinstance(t, torch.dtype) and t.is_floating_point}
    devices = {d.type for d in leaves if isinstance(d, torch.device)}
    fits = types <= {like.dtype} and devices <= {like.device.type}
    return captured if fits else capture(model, inputs)


def _working(tensors: Iterable[Tensor]) -> Tensor:
    """The first of inputs and parameters that holds numbers with a point; it shows type and device."""
    return next((t for t in tensors if t.is_floating_point()), torch.zeros(()))


def _argument(
    captured: Captured, node: fx.Node, held: dict[str, Tensor], fed: list[Tensor], like: Tensor
) -> Any:
    name, constant = captured.param_of(node), captured.constant_of(node)
    if name is not None:
        return held[name].detach().clone()
    if constant is not None:
        return as_worked(constant, like).clone()
    return fed.pop(0).clone() if isinstance(node.meta.get("val"), Tensor) else None


class _Masked(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, provenance: Provenance, gone: np.ndarray) -> None:
        super().__init__(graph)
        self.provenance, self.gone = provenance, gone
        self.shrinking = {n.name for n in provenance.shrinking}

    def run_node(self, n: fx.Node) -> Any:
        if n.name not in self.shrinking:
            return super().run_node(n)
        source = n.all_input_nodes[0]
        kept = {a: torch.from_numpy(k) for a, k in self.provenance.kept(source.name, self.gone).items()}
        if not kept:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        named: dict[str, Any] = self.map_nodes_to_values(bound(n), n)  # type: ignore[assignment]
        x: Tensor = named["tensors"][0] if packet(n) == "einsum" else args[0]
        name = packet(n)
        if name in ("layer_norm", "group_norm"):
            return _normalised(name, x, named, kept)
        if name == "batch_norm":
            return _batch_normalised(x, named, kept)
        if name == "einsum":
            first, *rest = named["tensors"]
            return torch.einsum(named["equation"], _zeroed(first, kept), *rest)
        if name in ("matmul", "mm", "bmm"):
            return n.target(_zeroed(x, kept), *args[1:], **kwargs)  # type: ignore[operator]
        dims = named.get("dim")
        reduced = (
            set(range(x.dim()))
            if dims in (None, [])
            else {d % x.dim() for d in ([dims] if isinstance(dims, int) else dims)}
        )
        for axis in set(kept) & reduced:
            x = x.index_select(axis, kept[axis])
        return n.target(x, *args[1:], **kwargs)  # type: ignore[operator]


def _zeroed(x: Tensor, kept: dict[int, Tensor]) -> Tensor:
    for axis, index in kept.items():
        mask = torch.zeros(x.size(axis), dtype=x.dtype)
        mask[index] = 1
        x = x * mask.view([-1 if d == axis else 1 for d in range(x.dim())])
    return x


def _normalised(name: str, x: Tensor, named: dict[str, Any], kept: dict[int, Tensor]) -> Tensor:
    small, weight, bias = x, named.get("weight"), named.get("bias")
    first = x.dim() - len(named["normalized_shape"]) if name == "layer_norm" else 1
    for axis, index in kept.items():
        small = small.index_select(axis, index)
        if axis >= first and (name == "layer_norm" or axis == 1):
            weight = weight.index_select(axis - first, index) if weight is not None else None
            bias = bias.index_select(axis - first, index) if bias is not None else None
    if name == "layer_norm":
        small = nn.functional.layer_norm(small, small.shape[first:], weight, bias, named["eps"])
    else:
        small = nn.functional.group_norm(small, named["num_groups"], weight, bias, named["eps"])
    return _put_back(small, x, kept)


def _batch_normalised(x: Tensor, named: dict[str, Any], kept: dict[int, Tensor]) -> Tensor:
    small, rest = x, {a: k for a, k in kept.items() if a != 1}
    for axis, index in rest.items():
        small = small.index_select(axis, index)
    out = nn.functional.batch_norm(
        small, named["running_mean"], named["running_var"], named["weight"], named["bias"],
        bool(named["training"]), named["momentum"], named["eps"],
    )  # fmt: skip
    return _put_back(out, x, rest)


def _put_back(small: Tensor, like: Tensor, kept: dict[int, Tensor]) -> Tensor:
    """The small tensor scattered into zeros of the full shape."""
    full = small
    for axis, index in kept.items():
        shape = list(full.shape)
        shape[axis] = like.size(axis)
        full = torch.zeros(shape, dtype=full.dtype).index_copy(axis, index, full)
    return full
