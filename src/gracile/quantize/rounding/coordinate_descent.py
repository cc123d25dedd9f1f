"""Integers improved one input at a time until none can be moved for the better.

Source: Behdin et al., "QuantEase: optimization-based quantization for language models", 2023, arXiv
2309.01885, section 3 (cyclic coordinate descent on the squared error of a layer's output): with all other
weights of a row held, the best value of one is known in closed form, and on a grid it is the integer next to
it. It starts here where :func:`~gracile.quantize.rounding.least_squares.compensate` ends.
"""

from __future__ import annotations

import torch
from torch import Tensor


def descend(
    weight: Tensor,
    steps: Tensor,
    covariance: Tensor,
    integers: Tensor,
    *,
    qmin: int,
    qmax: int,
    passes: int,
) -> Tensor:
    """Integers with an error ``(weight - steps q) covariance (weight - steps q)'`` no larger, row by row.

    Args:
        weight: ``(groups, out, inputs)``; where one is exactly zero the integer stays.
        steps: Of the grid, positive, shaped as ``weight``.
        covariance: Of the inputs, ``(groups, inputs, inputs)``, symmetric, its diagonal positive.
        integers: To start from, whole numbers shaped as ``weight``.
        qmin: Smallest integer.
        qmax: Largest integer.
        passes: Over all inputs, at most; it ends earlier when nothing moves.

    Example:
        >>> both_the_same = torch.eye(2)[None] * 0.01 + 1
        >>> weight, ones = torch.tensor([[[0.4, 0.4]]]), torch.ones(1, 1, 2)
        >>> descend(weight, ones, both_the_same, torch.zeros(1, 1, 2), qmin=-7, qmax=7, passes=3).tolist()
        [[[1.0, 0.0]]]
    """
    found = integers.mT.clone(memory_format=torch.contiguous_format)  # (groups, inputs, out)
    scale, free = steps.mT.contiguous(), weight.mT != 0
    pull = covariance @ (weight.mT - found * scale)  # half the gradient with its sign turned
    reach = covariance.diagonal(dim1=1, dim2=2)[:, :, None] * scale
    for _ in range(passes):
        moved = False
        for k in range(found.shape[1]):
            move = (found[:, k] + pull[:, k] / reach[:, k]).round_().clamp_(qmin, qmax) - found[:, k]
            move *= free[:, k]
            if bool(move.any()):
                moved = True
                found[:, k] += move
                pull -= covariance[:, :, k, None] * (move * scale[:, k])[:, None]
        if not moved:
            break
    return found.mT
