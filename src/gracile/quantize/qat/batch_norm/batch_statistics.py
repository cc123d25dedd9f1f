"""Statistics of a batch, with gradients; running ones follow them as in PyTorch's batch norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracile.errors import BadArgument, UnsupportedOperation

from .base import BatchNorm, full, running


def batch_statistics_(norm: BatchNorm, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over a batch; the norm's running statistics move on.

    ``running = (1 - momentum) running + momentum batch``, with the unbiased variance; momentum ``None``
    stands for the plain mean of all batches.

    Args:
        norm: Its running statistics change.
        y: ``(batch, channels, ...)``, more than one value a channel.

    Returns:
        Mean and biased variance ``(channels,)``, in float32 at least; gradients go through both.

    Raises:
        BadArgument: There is one value a channel.
        UnsupportedOperation: The norm takes statistics over all processes.

    Example:
        >>> norm = nn.BatchNorm1d(1, momentum=0.5)
        >>> [v.tolist() for v in batch_statistics_(norm, torch.tensor([[1.0], [3.0]]))]
        [[2.0], [1.0]]
        >>> norm.running_mean.tolist(), norm.running_var.tolist()
        ([1.0], [1.5])
    """
    if isinstance(norm, nn.SyncBatchNorm):
        raise UnsupportedOperation(
            "batch norm",
            wanted="statistics of one process",
            found="SyncBatchNorm",
            do="Take the scheme plain, one_convolution or frozen, or BatchNorm.",
        )
    count = y.numel() // y.shape[1]
    if count < 2:
        raise BadArgument(
            "batch", wanted="more than one value a channel while training", found=f"shape {tuple(y.shape)}"
        )
    var, mean = torch.var_mean(full(y), [d for d in range(y.dim()) if d != 1], correction=0)
    held = running(norm)
    assert norm.num_batches_tracked is not None
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        unbiased = var * (count / (count - 1))
        for old, new in zip(held, (mean, unbiased), strict=True):
            step = norm.num_batches_tracked.reciprocal() if norm.momentum is None else norm.momentum
            old.lerp_(new.to(old.dtype), step)
    return mean, var


def normalised_(norm: BatchNorm, y: Tensor) -> Tensor:
    """What ``norm`` makes of ``y`` while training, in float32 at least; tracked statistics move on.

    PyTorch turns the count of batches into a number where the momentum is ``None``, which ``torch.compile``
    cannot follow; there the same is computed without it.

    Example:
        >>> norm = nn.BatchNorm1d(1, momentum=None)
        >>> normalised_(norm, torch.tensor([[1.0], [3.0]])).round(decimals=3).tolist()
        [[-1.0], [1.0]]
        >>> norm.running_mean.tolist()
        [2.0]
    """
    y = full(y)
    if norm.momentum is not None or not norm.track_running_stats:
        out: Tensor = norm(y)
        return out
    batch_statistics_(norm, y.detach())
    return F.batch_norm(y, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
