"""Where a model lies, and what has to follow it there."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn


def device_of(model: nn.Module) -> torch.device:
    """Device of the first parameter, or of the first buffer; the CPU where there are none.

    Example:
        >>> device_of(nn.Linear(1, 1)).type, device_of(nn.ReLU()).type
        ('cpu', 'cpu')
    """
    held = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if held is None else held.device
