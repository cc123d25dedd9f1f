"""Loss and accuracy on data that nothing is trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gracile.graph import evaluating
from gracile.observe import bfloat16_autocast, device_of

from .loss import CrossEntropy, Loss


@dataclass(frozen=True, kw_only=True)
class Score:
    """Mean loss and top-1 accuracy in percent on ``n`` examples."""

    loss: float
    accuracy: float
    n: int


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    loss: Loss | None = None,
    bf16: bool | None = False,
) -> Score:
    """Judge ``model`` in evaluation mode; its mode is put back afterwards.

    Args:
        model: Gives ``(batch, classes)``.
        batches: Images and labels.
        loss: Default: cross entropy without smoothing.
        bf16: Run under bfloat16 autocast, as training did; None: where the device computes it fast.

    Returns:
        The score; loss and accuracy are NaN when there are no examples.

    Example:
        >>> batch = (torch.eye(2), torch.tensor([0, 0]))
        >>> evaluate(nn.Identity(), [batch]).accuracy
        50.0
    """
    loss = loss or CrossEntropy()
    device = device_of(model)
    total, right, count = 0.0, 0, 0
    with evaluating(model), torch.no_grad():
        for images, labels in batches:
            images, labels = images.to(device), labels.to(device)
            with bfloat16_autocast(device, bf16):
                outputs = model(images)
            total += loss(outputs, labels, images).item() * len(labels)
            right += int((outputs.argmax(1) == labels).sum())
            count += len(labels)
    if not count:
        return Score(loss=float("nan"), accuracy=float("nan"), n=0)
    return Score(loss=total / count, accuracy=100.0 * right / count, n=count)
