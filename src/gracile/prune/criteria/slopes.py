"""Derivatives of the loss with respect to a model's parameters, without a trace on the model.

The user's module itself runs, in evaluation mode, on copies of its parameters and buffers: no ``.grad``,
``requires_grad``, buffer or mode of the model changes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gracile.graph import evaluating

from .criterion import Scene
from .examples import Example, logits, plain_attention


def weight_gradients(
    scene: Scene, example: Example, factors: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Derivatives of a batch's mean loss with respect to every parameter.

    Args:
        scene: The model and its loss.
        example: Inputs and targets of one batch.
        factors: Parameters by name, to be multiplied by these before the model runs.

    Returns:
        Per parameter (every name that it has) its derivative, at the multiplied parameter.

    Example:
        >>> from gracile.graph import capture, trace
        >>> net = nn.Linear(1, 2)
        >>> scene = Scene(model=net, provenance=trace(capture(net, (torch.zeros(1, 1),))), groups=())
        >>> slopes = weight_gradients(scene, ((torch.ones(2, 1),), torch.zeros(2, dtype=torch.long)))
        >>> slopes["weight"].shape, net.weight.grad
        (torch.Size([2, 1]), None)
    """
    model = scene.model
    own = {n: p.detach().clone() for n, p in model.named_parameters()}
    for name, factor in (factors or {}).items():
        own[name] *= factor.to(own[name])
    wanted = {n: p.requires_grad_() for n, p in own.items() if p.is_floating_point()}
    buffers = {n: b.detach().clone() for n, b in model.named_buffers()}
    inputs, targets = example
    with evaluating(model), torch.enable_grad(), plain_attention():
        outputs = logits(functional_call(model, (own, buffers), tuple(x.clone() for x in inputs)))
        loss = scene.loss(outputs, targets.to(outputs.device)).mean()
    slopes = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    found = {
        n: p.new_zeros(p.shape) if g is None else g for (n, p), g in zip(wanted.items(), slopes, strict=True)
    }
    return {alias: found[name] for alias, name in aliases(model).items() if name in found}


def aliases(model: nn.Module) -> dict[str, str]:
    """Every name of every parameter to the first name of the same parameter.

    Example:
        >>> a = nn.Linear(2, 2, bias=False)
        >>> aliases(nn.Sequential(a, a))
        {'0.weight': '0.weight', '1.weight': '0.weight'}
    """
    first: dict[int, str] = {}
    return {name: first.setdefault(id(p), name) for name, p in model.named_parameters(remove_duplicate=False)}
