"""One module in the place of another, under every name that it has."""

from __future__ import annotations

from torch import nn


def stand_in(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Put ``new`` wherever ``old`` is registered in ``model``, in place.

    Returns:
        The model: itself, or ``new`` where ``old`` is the whole of it.

    Example:
        >>> net = nn.Sequential(nn.ReLU())
        >>> net.also = net[0]
        >>> _ = stand_in(net, net[0], nn.GELU())
        >>> net[0], net.also
        (GELU(approximate='none'), GELU(approximate='none'))
    """
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is old:
                module._modules[name] = new
    return new if model is old else model
