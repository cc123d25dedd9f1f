"""Weights that a layer computes from parameters alone, computed once; and modules that never run.

Source: Aho, Lam, Sethi and Ullman, "Compilers: principles, techniques, and tools", 2nd edition, 2006,
sections 9.1 and 9.4 (constant folding, dead code), on the captured graph. Weight normalisation, standardised
weights and ``torch.nn.utils.prune`` masks compute a weight in every pass; classifiers of their own for
training stay behind unread.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from gracile.errors import BadArgument
from gracile.graph import Captured, stand_in
from gracile.graph.rules import bound, packet, shape_of
from gracile.nn import parts_of
from gracile.records import ConstantWeight

from .paths import LAYERS

PLAIN = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip

_KEPT = (
    "in_features", "out_features", "in_channels", "out_channels", "kernel_size", "stride", "padding",
    "dilation", "groups", "padding_mode", "output_padding", "transposed", "_reversed_padding_repeated_twice",
)  # fmt: skip


def find_constants(captured: Captured, model: nn.Module) -> tuple[ConstantWeight, ...]:
    """Layers whose weight is computed from parameters alone, and that do nothing else.

    Example:
        >>> from gracile.graph import capture
        >>> net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)))
        >>> find_constants(capture(net, (torch.zeros(1, 3),)), net)
        (ConstantWeight(layer='0', shape=(1, 3)),)
    """
    held: dict[str, list[fx.Node]] = {}
    for node in captured.graph.nodes:
        for path in _stack(node) if node.op == "call_function" else []:
            held.setdefault(path, []).append(node)
    found = []
    for name, module in model.named_modules():
        nodes = [n for n in held.get(name, []) if not _is_constant(captured, n)]
        if not name or not isinstance(module, PLAIN) or parts_of(module) or len(nodes) != 1:
            continue
        if packet(nodes[0]) not in LAYERS:
            continue
        args = bound(nodes[0])
        if args["weight"].op == "call_function" and _is_constant(captured, args["weight"]):
            found.append(ConstantWeight(layer=name, shape=shape_of(args["input"])))
    return tuple(found)


def _stack(node: fx.Node) -> list[str]:
    return [str(path) for path, _ in (node.meta.get("nn_module_stack") or {}).values()]


def _is_constant(captured: Captured, node: fx.Node) -> bool:
    """Whether a value depends on parameters, buffers and constants alone."""
    todo, seen = [node], set()
    while todo:
        at = todo.pop()
        if at.op == "placeholder" and captured.param_of(at) is None and captured.constant_of(at) is None:
            return False
        if at not in seen:
            seen.add(at)
            todo += at.all_input_nodes
    return True


class _Catch(TorchFunctionMode):
    """Keeps what the last convolution or linear layer was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in LAYERS:
            given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
            self.weight, self.bias = given["weight"], given.get("bias")
        return function(*args, **kwargs)


@torch.no_grad()
def make_constant_(model: nn.Module, constant: ConstantWeight) -> None:
    """Put a plain layer with the weight that it computes in the place of one, in place.

    Raises:
        BadArgument: The model has no such layer.

    Example:
        >>> net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))).eval()
        >>> x = torch.randn(2, 3)
        >>> wanted = net(x)
        >>> make_constant_(net, ConstantWeight(layer="0", shape=(1, 3)))
        >>> type(net[0]), torch.equal(net(x), wanted)
        (<class 'torch.nn.modules.linear.Linear'>, True)
    """
    layer = module_at(model, constant.layer)
    kind = next((kind for kind in PLAIN if isinstance(layer, kind)), None)
    first = next(layer.parameters(), torch.zeros(()))
    training = layer.training
    with _Catch() as caught:
        layer.eval()(first.new_zeros(constant.shape))
    layer.train(training)
    if kind is None or caught.weight is None:
        raise BadArgument(constant.layer, wanted="a convolution or linear layer", found=type(layer).__name__,
                          do="Make the plan anew for this model.")  # fmt: skip
    plain = kind.__new__(kind)
    nn.Module.__init__(plain)
    for key in _KEPT:
        if hasattr(layer, key):
            setattr(plain, key, getattr(layer, key))
    plain.weight = nn.Parameter(caught.weight.detach().clone())
    bias = None if caught.bias is None else nn.Parameter(caught.bias.detach().clone())
    plain.register_parameter("bias", bias)
    stand_in(model, layer, plain.train(training))


def find_dead(captured: Captured, model: nn.Module) -> tuple[str, ...]:
    """Outermost modules that hold parameters and neither run nor are read.

    Example:
        >>> from gracile.graph import capture
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.used, self.auxiliary = nn.Linear(3, 2), nn.Linear(3, 5)
        ...     def forward(self, x):
        ...         return (self.used(x), self.auxiliary(x)) if self.training else self.used(x)
        >>> find_dead(capture(Net(), (torch.zeros(1, 3),)), Net())
        ('auxiliary',)
    """
    state = {**dict(model.named_parameters(remove_duplicate=False)),
             **dict(model.named_buffers(remove_duplicate=False))}  # fmt: skip
    read: set[int] = set()
    ran: set[str] = set()
    for node in captured.graph.nodes:
        ran.update(_stack(node))
        name = captured.param_of(node)
        if name is not None and node.users and name in state:
            read.add(id(state[name]))
    found: list[str] = []
    for name, module in model.named_modules():
        own = [*module.parameters(), *module.buffers()]
        inside = any(name.startswith(f"{other}.") for other in found)
        if name and own and not inside and name not in ran and not any(id(t) in read for t in own):
            found.append(name)
    return tuple(found)


def module_at(model: nn.Module, name: str) -> nn.Module:
    """The module of that name.

    Raises:
        BadArgument: There is none.
    """
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise BadArgument(name, wanted="a module of the model", found="no such name",
                          do="Make the plan anew for this model.") from error  # fmt: skip
