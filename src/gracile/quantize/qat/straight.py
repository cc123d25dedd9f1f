"""Rounding that lets gradients pass: the straight-through estimator and its relatives.

Source: Bengio, Leonard and Courville, "Estimating or propagating gradients through stochastic neurons for
conditional computation", 2013, arXiv 1308.3432 (the estimator); Esser et al., "Learned step size
quantization", ICLR 2020, arXiv 1902.08153, equations 3 and 5 and section 2.2 (the step's gradient and its
scaling). Values are exact: no function here changes the last bit of what it returns in order to carry a
gradient, as sums of the form ``x + (round(x) - x)`` do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, x: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


def straight(value: Tensor, x: Tensor) -> Tensor:
    """``value``, with the gradient that ``x`` would have in its place.

    Args:
        value: What is returned; no gradient reaches it.
        x: Same shape.

    Example:
        >>> x = torch.tensor([0.4], requires_grad=True)
        >>> straight(torch.tensor([5.0]), x).backward()
        >>> x.grad.item()
        1.0
    """
    out: Tensor = _Straight.apply(value, x)
    return out


def round_straight(x: Tensor) -> Tensor:
    """``round(x)``, halves to even, with gradient 1 everywhere.

    Example:
        >>> round_straight(torch.tensor([0.5, 1.5, -0.7])).tolist()
        [0.0, 2.0, -1.0]
    """
    return straight(torch.round(x.detach()), x)


def scale_gradient(x: Tensor, factor: float | Tensor) -> Tensor:
    """``x``, with its gradient multiplied by ``factor``.

    Args:
        x: Finite values.
        factor: For a step of LSQ ``1 / sqrt(N * qmax)``: ``N`` values share the step.

    Example:
        >>> x = torch.tensor(2.0, requires_grad=True)
        >>> scale_gradient(x, 0.25).backward()
        >>> x.grad.item()
        0.25
    """
    return x.detach() + factor * (x - x.detach())


def keep_parameters(x: Tensor, module: nn.Module) -> Tensor:
    """``x``, with a gradient of zero for the parameters of ``module``.

    Data-parallel training expects a gradient for every parameter in every step, also while a module is off.
    """
    if not (module.training and torch.is_grad_enabled()):
        return x
    for parameter in module.parameters(recurse=False):
        x = x + (0.0 * parameter).sum().to(x.dtype)
    return x
