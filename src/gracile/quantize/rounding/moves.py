"""Integers and grids of a plan: how far integers lie from the nearest, as text, and which there are."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gracile.nn import spread
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


def spread_grid(plan: WeightQuant, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Steps (float64) and zero points of a plan in a shape that broadcasts over its weight.

    Example:
        >>> limits = {"bits": 8, "qmin": -127, "qmax": 127}
        >>> plan = WeightQuant(layer="fc", axis=0, scale=(0.5, 2.0), zero_point=(0, 0), **limits)
        >>> spread_grid(plan, torch.zeros(2, 3))[0].tolist()
        [[0.5], [2.0]]
    """
    scale = torch.tensor(plan.scale, dtype=torch.float64, device=weight.device)
    zero = torch.tensor(plan.zero_point, device=weight.device)
    if plan.group is None:
        shape = [-1 if d == plan.axis else 1 for d in range(weight.dim())]
        return scale.reshape(shape), zero.reshape(shape)
    shape = [*weight.shape[:2], *[1] * (weight.dim() - 2)]
    parts = (v.reshape(len(weight), -1) for v in (scale, zero))
    wide_scale, wide_zero = (spread(v, weight.shape[1], plan.group).reshape(shape) for v in parts)
    return wide_scale, wide_zero


def with_lowest(plan: WeightQuant) -> WeightQuant:
    """The plan with the lowest integer too, which symmetric grids below 8 bits leave out.

    It costs nothing, and with 2 bits is a quarter of the integers.
    """
    mirrored = plan.qmin == -plan.qmax and not any(plan.zero_point)
    return replace(plan, qmin=plan.qmin - 1) if plan.bits < 8 and mirrored else plan
