"""How much a squared error bends along each weight: the diagonal of its Gauss-Newton matrix, by random signs.

Source: Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing
splines", Communications in Statistics 19(2), 1990; for diagonals Bekas, Kokiopoulou and Saad, "An estimator
for the diagonal of a matrix", Applied Numerical Mathematics 57, 2007. With outputs ``y`` of Jacobian ``J``
and an error ``sum_o c_o (y_o - t_o)**2``, the Gauss-Newton matrix is ``2 J' diag(c) J``. For random signs
``v`` the squares of ``J' (sqrt(2 c) v)`` are its diagonal on average: one backward pass each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def curvatures(
    weighted: Callable[[], Sequence[tuple[Tensor, Tensor]]],
    parameters: Sequence[Tensor],
    rounds: int,
    random: torch.Generator,
) -> list[Tensor]:
    """Second derivatives of a squared error along each entry of ``parameters``, the part that ``J`` explains.

    Args:
        weighted: Runs a forward pass; gives outputs, each with the weight of its squared error (a number).
        parameters: Leaves that the outputs depend on.
        rounds: Forward and backward passes that are averaged over.
        random: Of the signs.

    Returns:
        Not negative, each shaped as its parameter.

    Example:
        >>> x, w = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.zeros(2, requires_grad=True)
        >>> draw = torch.Generator().manual_seed(0)
        >>> (found,) = curvatures(lambda: [(x @ w, torch.tensor(0.5))], [w], rounds=1, random=draw)
        >>> found.tolist()  # of half the sum of squares of x w: 3 * 3 and 1 * 1
        [9.0, 1.0]
    """
    sums = [torch.zeros_like(p) for p in parameters]
    for _ in range(rounds):
        total = torch.zeros(())
        for y, weight in weighted():
            signs = torch.randint(0, 2, y.shape, generator=random).to(y.device, torch.float32) * 2 - 1
            total = total + (y.float() * signs).sum().cpu() * (2 * weight.cpu()).sqrt()
        for held, grad in zip(sums, torch.autograd.grad(total, parameters), strict=True):
            held += grad.float().square() / rounds
    return sums
