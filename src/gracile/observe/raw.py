"""The bytes of a tensor, for checksums."""

from __future__ import annotations

import torch
from torch import Tensor


def raw_bytes(tensor: Tensor) -> bytes:
    """The numbers of a tensor as they lie in memory, in the order of its axes; of any type.

    Example:
        >>> raw_bytes(torch.ones(1, dtype=torch.bfloat16)).hex()
        '803f'
    """
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
