"""Small parts hung before or behind a module of the user's own model.

The module keeps its class, its name and the names of its parameters; the part becomes a child of it
(``bn2.scatter.table``) and runs through the module's forward hooks, which ``copy.deepcopy``, ``torch.export``
and ``torch.compile`` follow. At most one part of each kind: ``gather`` runs before the module, then behind it
``border``, ``mask`` and ``scatter``, in this order.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gracile.errors import BadArgument

BEFORE = ("gather",)
BEHIND = ("border", "mask", "scatter")


class Part(nn.Module):
    """A module that Gracile hangs on another, which must be called as a module to run it."""


def attach_(module: nn.Module, kind: str, part: Part) -> None:
    """Hang ``part`` on ``module``, in place of an earlier one of its kind.

    Args:
        module: A module without children of its own.
        kind: ``gather``, ``border``, ``mask`` or ``scatter``.
        part: What runs on the module's input or output.

    Raises:
        BadArgument: The kind is not known, or the module has children or an attribute of that name.

    Example:
        >>> import torch
        >>> from gracile.nn import MaskChannels
        >>> layer = nn.Linear(2, 3)
        >>> attach_(layer, "mask", MaskChannels(torch.tensor([1.0, 0.0, 1.0])))
        >>> layer(torch.ones(1, 2))[0, 1].item() == 0, sorted(layer.state_dict())
        (True, ['bias', 'mask.mask', 'weight'])
    """
    known, held = (*BEFORE, *BEHIND), parts_of(module)
    if kind not in known:
        raise BadArgument("kind", wanted=f"one of {', '.join(known)}", found=repr(kind))
    if len(held) != len(module._modules) or (kind not in held and hasattr(module, kind)):
        raise BadArgument(
            type(module).__name__,
            wanted=f"a module without children and without an attribute `{kind}`",
            found=", ".join(module._modules) or kind,
            do="Leave this layer out.",
        )
    module._modules[kind] = part
    part.train(module.training)
    if kind in BEFORE and _before not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(_before)
    if kind in BEHIND and _behind not in module._forward_hooks.values():
        module.register_forward_hook(_behind)


def parts_of(module: nn.Module) -> dict[str, Part]:
    """The parts that hang on a module, by kind."""
    return {name: part for name, part in module._modules.items() if isinstance(part, Part)}


def detach_(module: nn.Module, kind: str) -> Part:
    """Take a part off; its hook stays and finds nothing to do."""
    part = module._modules.pop(kind)
    assert isinstance(part, Part)
    return part


def hand_over_(source: nn.Module, target: nn.Module) -> nn.Module:
    """Hang on ``target`` all that hangs on ``source``, and return it: for a module that takes its place.

    Example:
        >>> import torch
        >>> from gracile.nn import GatherChannels
        >>> norm = nn.BatchNorm1d(2)
        >>> attach_(norm, "gather", GatherChannels(torch.tensor([0, 2]), 3))
        >>> hand_over_(norm, nn.Identity())(torch.tensor([[1.0, 2.0, 3.0]])).tolist()
        [[1.0, 3.0]]
    """
    for kind, part in parts_of(source).items():
        attach_(target, kind, part)
    return target


def _before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    held = parts_of(module)
    if not held:
        return None
    x: Tensor = args[0]
    for kind in BEFORE:
        if kind in held:
            x = held[kind](x)
    return (x, *args[1:])


def _behind(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
    held = parts_of(module)
    for kind in BEHIND:
        if kind in held:
            out = held[kind](out)
    return out
