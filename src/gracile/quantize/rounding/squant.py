"""SQuant: rounding that needs no data, by making the errors of each kernel and of each output channel cancel.

Source: Guo, Qiu, Leng, Gao, Zhang, Liu, Yang, Zhu and Guo, "SQuant: on-the-fly data-free quantization via
diagonal Hessian approximation", ICLR 2022, arXiv 2202.07471, section 3.3 (the objective: element, kernel and
channel sums of errors) and algorithms 1 to 4. With ``d = q - w / scale`` after rounding to the nearest:

1. kernel by kernel, as many weights as ``|sum d|`` rounds to are moved one step against the sum, those with
   the largest ``|d|`` first: then ``|sum d| <= 1/2`` in every kernel, ``|d| <= 1`` for every weight, and
   among all roundings up or down that reach this sum, ``sum d^2`` is least;
2. output channel by output channel, one weight in each of as many kernels as the channel's ``|sum d|`` rounds
   to, kernels with the largest sum of the channel's sign first: ``|sum d| <= 1/2`` in every channel, ``<= 1``
   in every kernel.

Where we differ: weights that are exactly zero were pruned and stay zero, and no integer leaves its grid (a
range that clips makes the sums larger than rounding alone would, and may leave them so).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gracile.nn import quantize
from gracile.records import QuantPlan, WeightQuant

from ..lower import fetch
from .moves import pack, spread_grid
from .site import Site


@dataclass(frozen=True, kw_only=True)
class SQuant:
    """Integers whose errors cancel within each kernel and output channel; no data, a second for a network."""

    needs_data = False

    def round(self, plan: QuantPlan, site: Site) -> QuantPlan:
        """The plan with some weights moved to their other neighbour."""
        layers = {layer.name: layer for layer in site.units.layers}
        return replace(
            plan,
            weights=tuple(
                _round(fetch(site.graph, str(layers[w.layer].weight.target)), w) for w in plan.weights
            ),
        )


def squant(weight: Tensor, qmin: int, qmax: int) -> Tensor:
    """Integers for weights given in steps of their grid.

    Args:
        weight: ``(out, in, kernel)``, divided by the scale, zero point added.
        qmin: Smallest integer.
        qmax: Largest integer.

    Returns:
        Whole numbers, shaped as ``weight``, none further than 1 from it except where the grid ends.

    Example:
        >>> squant(torch.tensor([[[0.4, 0.3, 0.3]]]), -7, 7).tolist()  # their sum is 1
        [[[1.0, 0.0, 0.0]]]
    """
    weight = weight.double()
    integers = torch.round(weight).clamp(qmin, qmax)
    free = weight != 0
    integers = _flip(weight, integers, free, qmin, qmax, _wanted((integers - weight).sum(2)))
    error = integers - weight
    per_kernel = error.sum(2)  # (out, in)
    total = per_kernel.sum(1, keepdim=True)  # (out, 1)
    helps = per_kernel * total.sign()
    movable = _movable(error, integers, free, total[..., None], qmin, qmax).any(2)
    order = _rank(helps, movable & (helps > 0))
    once = torch.where(order < _wanted(total).abs(), total.sign(), torch.zeros_like(total))
    return _flip(weight, integers, free, qmin, qmax, once).float()


def _wanted(total: Tensor) -> Tensor:
    """How many weights to move down; below zero, how many to move up. A sum of a half is left as it is."""
    return total.sign() * torch.ceil(total.abs() - 0.5)


def _flip(weight: Tensor, integers: Tensor, free: Tensor, qmin: int, qmax: int, down: Tensor) -> Tensor:
    """Move ``down`` weights of each kernel (out, in) one step down, or up where it is negative."""
    error = integers - weight
    sign = down.sign()[..., None]
    rank = _rank(error * sign, _movable(error, integers, free, sign, qmin, qmax))
    return torch.where(rank < down.abs()[..., None], integers - sign, integers)


def _movable(error: Tensor, integers: Tensor, free: Tensor, sign: Tensor, qmin: int, qmax: int) -> Tensor:
    """Weights whose error has the sign of the sum, and that can go on."""
    moved = integers - sign.sign()
    return free & (error * sign > 0) & (moved >= qmin) & (moved <= qmax)


def _rank(value: Tensor, candidate: Tensor) -> Tensor:
    """Place of each entry in its row, largest value first; entries that are no candidates come after all."""
    value = torch.where(candidate, value, torch.full_like(value, -torch.inf))
    order = value.argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(dim=-1).to(value.dtype)
    return torch.where(candidate, rank, torch.full_like(rank, torch.inf))


def _round(weight: Tensor, plan: WeightQuant) -> WeightQuant:
    """The plan of a layer with its weights rounded; errors cancel among weights that share a step."""
    weight = weight.detach().float()
    scale, zero = spread_grid(plan, weight)
    scaled = weight.double() / scale + zero
    near = quantize(weight, scale.float(), zero, plan.qmin, plan.qmax)
    kernels = scaled.reshape(*weight.shape[:2], -1)
    held = torch.where((weight == 0).reshape(kernels.shape), torch.zeros_like(kernels), kernels)
    groups = torch.split(held, plan.group or held.shape[1], 1)
    best = torch.cat([squant(group, plan.qmin, plan.qmax) for group in groups], 1).double()
    best = torch.where(held == 0, near.reshape(kernels.shape).double(), best)
    return replace(plan, moved=pack(best.reshape(weight.shape) - near))
