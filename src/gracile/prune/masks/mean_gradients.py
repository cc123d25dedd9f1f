"""How much the loss depends on each parameter: absolute gradients, averaged over batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracile.errors import BadArgument, NonFiniteError
from gracile.graph import evaluating
from gracile.observe import device_of


def mean_gradients(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> dict[str, Tensor]:
    """``E |dL/dw|`` of every parameter that takes a gradient, over batches, in evaluation mode.

    The model is left as it was: its gradients, its statistics and its modes.

    Args:
        model: Gives ``(batch, classes)``.
        batches: Images and labels; training images, never those of the test.
        loss: Outputs and labels to one number.

    Raises:
        BadArgument: There is no batch.
        NonFiniteError: A gradient holds NaN or infinity.

    Example:
        >>> net = nn.Linear(1, 1, bias=False)
        >>> batch = torch.tensor([[2.0]]), torch.tensor([[0.0]])
        >>> mean_gradients(net, [batch], loss=lambda y, t: y.sum())["weight"].tolist()
        [[2.0]]
    """
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p) for name, p in params.items()}
    device = device_of(model)
    count = 0
    with evaluating(model), torch.enable_grad():
        for images, labels in batches:
            value = loss(model(images.to(device)), labels.to(device))
            found = torch.autograd.grad(value, list(params.values()), allow_unused=True)
            for name, gradient in zip(params, found, strict=True):
                if gradient is not None:
                    sums[name] += gradient.abs()
            count += 1
    if not count:
        raise BadArgument("batches", wanted="at least one batch of images and labels", found="none")
    for name, total in sums.items():
        if not bool(torch.isfinite(total).all()):
            raise NonFiniteError(name, wanted="finite gradients", found="NaN or infinity")
    return {name: total / count for name, total in sums.items()}
