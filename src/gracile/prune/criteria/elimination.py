"""Which input channels a layer can do without, when its remaining weights are fitted again.

Source: Hassibi and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NIPS 1992,
equations 5-6, in the form for blocks of weights (Kurtic et al., "The Optimal BERT Surgeon", 2022, arXiv
2203.07259, equation 4), on the layer's own squared output error as in He et al., "Channel pruning for
accelerating very deep neural networks", 2017, arXiv 1707.06168. Where we differ: channels go one by one
(backward elimination), all weights are fitted again after each, exactly, and several layers that read the
same channels count together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ONE_BY_ONE = 128  # units; of more, the cheapest 64th go in one step


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A layer's least-squares fit: ``inverse`` is ``(X'X + pull I)^-1``, ``weights`` is ``inverse X'Y``.

    The column of ones comes last; both have ``columns + 1`` rows.
    """

    inverse: Tensor
    weights: Tensor

    @classmethod
    def of(cls, xx: Tensor, xy: Tensor, pull: Tensor | float) -> Fitted:
        """From second moments, see :class:`gracile.observe.gram.Gram`; the intercept is not pulled."""
        system = xx.clone()
        system.diagonal()[:-1] += pull
        system.diagonal()[-1] *= 1 + 1e-12
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(system))
        return cls(inverse=inverse, weights=inverse @ xy)


class Reader:
    """One layer as seen by the units that it reads: the fit restricted to their columns.

    Columns of other inputs stay in the layer and are refitted too; what the restriction leaves out does not
    change what the units cost.

    Args:
        fitted: The layer's fit.
        importance: Weight of each output's squared error, ``(outputs,)``.
        index: Columns of each unit, ``(units, columns a unit)``.
    """

    def __init__(self, fitted: Fitted, importance: Tensor, index: Tensor) -> None:
        flat = index.flatten()
        self.inverse = fitted.inverse[flat[:, None], flat]
        self.weights = fitted.weights[flat]
        self.importance = importance
        self.width = index.shape[1]

    def _columns(self, units: Tensor) -> Tensor:
        return units[:, None] * self.width + torch.arange(self.width)

    def losses(self, units: Tensor) -> Tensor:
        """Rise of the weighted squared error when each unit goes alone: ``tr(W_u' (P_uu)^-1 W_u D)``."""
        index = self._columns(units)  # (candidates, columns a unit)
        block = self.inverse[index[:, :, None], index[:, None, :]]
        weights = self.weights[index]
        solved: Tensor = torch.linalg.solve(block, weights)
        return ((solved * weights).sum(1) * self.importance).sum(1)

    def remove(self, units: Tensor) -> None:
        """Take units out and fit the rest again: a Schur complement of the inverse."""
        index = self._columns(units).flatten()
        columns = self.inverse[:, index]
        right = torch.cat([self.inverse[index], self.weights[index]], dim=1)
        step = torch.linalg.solve(self.inverse[index][:, index], right)
        size = self.inverse.shape[0]
        self.inverse.addmm_(columns, step[:, :size], alpha=-1)
        self.weights.addmm_(columns, step[:, size:], alpha=-1)


def eliminate(readers: list[Reader], units: int) -> tuple[list[int], list[float]]:
    """Remove the unit that costs least, refit, and so on until one is left.

    While there are more than ``ONE_BY_ONE`` units, the cheapest 64th of them go in one step.

    Args:
        readers: Layers that read the units; their losses are added.
        units: Number of units.

    Returns:
        Units in the order of removal, and the rise of the error at each step; the last, kept unit costs
        infinity.

    Example:
        >>> x = torch.randn(50, 3).double()
        >>> x[:, 2] = 2 * x[:, 0]  # one of the two can go for nothing
        >>> x = torch.cat([x, torch.ones(50, 1)], dim=1)
        >>> fitted = Fitted.of(x.T @ x, x.T @ x.sum(1, keepdim=True), 1e-6)
        >>> order, rise = eliminate([Reader(fitted, torch.ones(1), torch.arange(3)[:, None])], 3)
        >>> order[0] in (0, 2), rise[0] < 1e-4 < rise[1]
        (True, True)
    """
    alive = torch.arange(units)
    order: list[int] = []
    rises: list[float] = []
    while len(alive) > 1:
        loss = torch.stack([r.losses(alive) for r in readers]).sum(0)
        count = 1 if len(alive) <= ONE_BY_ONE else len(alive) // 64
        going = torch.argsort(loss, stable=True)[:count]
        for r in readers:
            r.remove(alive[going])
        order += alive[going].tolist()
        rises += loss[going].clamp_min(0).tolist()
        stays = torch.ones(len(alive), dtype=torch.bool)
        stays[going] = False
        alive = alive[stays]
    return order + alive.tolist(), [*rises, math.inf]
