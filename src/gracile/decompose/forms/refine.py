"""Factors made better for data: the output's error as a smooth function of all factors at once.

For any multilinear form the output's error is ``tr((W - W') C (W - W')')`` with ``W'`` the dense weight
of the factors and ``C`` the covariance of what one output reads: a polynomial in the factors, which
quasi-Newton steps (L-BFGS) bring down from the factors found without data. Never worse than the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

STEPS = 60


def output_error(weight: Tensor, other: Tensor, covariance: Tensor | None) -> Tensor:
    """Squared error of the output over its energy; of the weight where there is no covariance.

    Example:
        >>> w = torch.ones(1, 2)
        >>> float(output_error(w, w * 0, torch.eye(2))), float(output_error(w, w, None))
        (1.0, 0.0)
    """
    matrix, off = weight.flatten(1), (weight - other).flatten(1)
    if covariance is None:
        return off.square().sum() / matrix.square().sum().clamp(min=1e-30)
    covariance = covariance.to(matrix)
    energy = ((matrix @ covariance) * matrix).sum()
    return ((off @ covariance) * off).sum() / energy.clamp(min=1e-30)


def refine(
    factors: Sequence[Tensor],
    dense: Callable[[Sequence[Tensor]], Tensor],
    weight: Tensor,
    covariance: Tensor | None,
    *,
    pull: float = 0.0,
    steps: int = STEPS,
) -> tuple[Tensor, ...]:
    """Factors whose dense weight keeps the output near.

    Args:
        factors: Where to start.
        dense: Dense weight of factors.
        weight: The weight to stand for.
        covariance: Of what one output reads; ``None`` for the error of the weight.
        pull: Weight of the factors' own mean square, relative to the start's: keeps factors from growing
            against one another.
        steps: Most quasi-Newton steps.
    """
    goal = weight.detach().double()
    second = None if covariance is None else covariance.to(goal)
    start = [f.detach().double() for f in factors]
    moving = [f.clone().requires_grad_() for f in start]
    size = sum(float(f.square().sum()) for f in start) or 1.0
    optimizer = torch.optim.LBFGS(
        moving, max_iter=steps, history_size=10, line_search_fn="strong_wolfe", tolerance_grad=1e-9
    )

    def loss() -> Tensor:
        own = sum((f.square().sum() for f in moving), torch.zeros((), dtype=goal.dtype, device=goal.device))
        return output_error(goal, dense(moving), second) + pull * own / size

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        found = output_error(goal, dense(moving), second)
        better = bool(found.isfinite() and found <= output_error(goal, dense(start), second))
    chosen = moving if better else start
    return tuple(f.detach().to(weight) for f in chosen)
