"""Integers of a plan: how far they lie from the nearest, as text, and which there are."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gracile.records import WeightQuant


def pack(moved: Tensor) -> str:
    """Small integers as text for a plan.

    Example:
        >>> unpack(pack(torch.tensor([[0, -1], [1, 0]])), (2, 2)).tolist()
        [[0, -1], [1, 0]]
    """
    return base64.b64encode(zlib.compress(moved.detach().cpu().numpy().astype(np.int8).tobytes(), 6)).decode()


def unpack(text: str, shape: tuple[int, ...]) -> Tensor:
    """Undo :func:`pack`."""
    values = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.int8)
    return torch.from_numpy(values.reshape(shape).astype(np.int64))


def with_lowest(plan: WeightQuant) -> WeightQuant:
    """The plan with the lowest integer too, which symmetric grids below 8 bits leave out.

    It costs nothing, and with 2 bits is a quarter of the integers.
    """
    mirrored = plan.qmin == -plan.qmax and not any(plan.zero_point)
    return replace(plan, qmin=plan.qmin - 1) if plan.bits < 8 and mirrored else plan
