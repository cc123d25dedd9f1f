"""Rounding of activations with the gradients of its range, in few passes over memory.

Source: Esser et al., "Learned step size quantization", ICLR 2020, arXiv 1902.08153, equations 3 and 5 (step);
Bhalgat et al., "LSQ+", CVPR Workshops 2020, arXiv 2004.09576, section 3 (step and offset); Choi et
al., "PACT", 2018, arXiv 1805.06085, equation 3 (clip). One function holds them all, because activations are
large and each further pass over them costs a share of every training step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class _RoundToGrid(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        qmax: int,
        offset: Tensor | None,
        clip: Tensor | None,
    ) -> Tensor:
        # to the last bit `torch.fake_quantize_per_tensor_affine`, in a fraction of its time on a CPU
        zero = zero_point.to(x.dtype)
        out = (x * (1 / scale)).round_().add_(zero).clamp_(0, qmax).sub_(zero).mul_(scale)
        ctx.save_for_backward(x, out, scale, zero_point)
        ctx.qmax, ctx.moves = qmax, offset is not None
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = gradients
        x, out, scale, zero_point = ctx.saved_tensors
        low, high = -zero_point * scale, (ctx.qmax - zero_point) * scale
        _, step, _, _, offset, clip = ctx.needs_input_grad
        within = _ones(torch.ge, x, low).mul_(_ones(torch.le, x, high))
        passed = g * within
        of_step = of_offset = of_clip = None
        if step:  # an offset is where the step stretches from
            apart = (
                (out - low).sub_((x - low).mul_(within))
                if ctx.moves
                else torch.addcmul(out, x, within, value=-1)
            )
            of_step = apart.mul_(g).sum() / scale
        if offset:
            of_offset = (g - passed).sum()
        if clip:
            of_clip = _ones(torch.gt, x, high).mul_(g).sum()
        return passed, of_step, None, None, of_offset, of_clip


def _ones(compare: Callable[..., Tensor], x: Tensor, end: Tensor) -> Tensor:
    """1.0 where ``compare`` holds and 0.0 elsewhere: multiplying by it is faster than choosing by a mask."""
    return compare(x, end, out=torch.empty_like(x))


def round_to_grid(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    qmax: int,
    *,
    offset: Tensor | None = None,
    clip: Tensor | None = None,
) -> Tensor:
    """``scale * (clip(round(x / scale) + zero_point, 0, qmax) - zero_point)``, with gradients.

    ``x`` gets its gradient inside the range. Where they ask for gradients, ``scale`` gets ``round(x/s) -
    x/s`` inside and ``-zero_point`` or ``qmax - zero_point`` outside; ``offset`` the sum of what falls
    outside, and ``scale`` then ``0`` or ``qmax`` there, as the range begins at the offset; ``clip`` the sum
    of what falls above. ``offset`` and ``clip`` have no influence on the value: they are what the grid was
    made from.

    Args:
        x: Float32, any shape.
        scale: Positive, ``()``.
        zero_point: int32, ``()``.
        qmax: Largest integer.
        offset: Lower end that the grid was made from, ``()``.
        clip: Upper end that the grid was made from, ``()``.

    Example:
        >>> step, zero = torch.tensor(0.5, requires_grad=True), torch.tensor(0, dtype=torch.int32)
        >>> y = round_to_grid(torch.tensor([-1.0, 0.6, 9.0]), step, zero, 3)
        >>> y.tolist()
        [0.0, 0.5, 1.5]
        >>> y.sum().backward()
        >>> round(step.grad.item(), 4)  # 0, 1 - 1.2 and 3
        2.8
    """
    out: Tensor = _RoundToGrid.apply(x, scale, zero_point, qmax, offset, clip)
    return out
