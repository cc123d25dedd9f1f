"""Where a model lies, and in what numbers that place computes fast."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn

from .processor import is_x86


def device_of(model: nn.Module) -> torch.device:
    """Device of the first parameter, or of the first buffer; the CPU where there are none.

    Example:
        >>> device_of(nn.Linear(1, 1)).type, device_of(nn.ReLU()).type
        ('cpu', 'cpu')
    """
    held = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if held is None else held.device


def fast_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` has instructions for bfloat16: AVX-512 BF16 or AMX, those of ARM, or a GPU's.

    Elsewhere PyTorch computes the same numbers many times slower than in float32.

    Example:
        >>> fast_bfloat16(torch.device("meta"))
        False
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    if is_x86():  # oneDNN says yes to any AVX-512, and emulates
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def bfloat16_autocast(device: torch.device, wanted: bool | None) -> torch.autocast:
    """Autocast in bfloat16 as ``wanted``; None: where it is fast.

    Example:
        >>> with bfloat16_autocast(torch.device("cpu"), True):
        ...     nn.Linear(2, 1)(torch.zeros(1, 2)).dtype
        torch.bfloat16
    """
    return torch.autocast(device.type, torch.bfloat16, fast_bfloat16(device) if wanted is None else wanted)
