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


@dataclass(kw_only=True)
class Reader:
    """What backward elimination needs of one layer.

    ``inverse`` is ``(X'X + pull I)^-1``, ``weights`` the fitted ``W`` ``(columns + 1, outputs)``,
    ``importance`` the weight of each output's squared error ``(outputs,)``, ``index`` the columns of each
    unit ``(units, columns a unit)``.
    """

    inverse: Tensor
    weights: Tensor
    importance: Tensor
    index: Tensor

    @classmethod
    def of(cls, xx: Tensor, xy: Tensor, pull: Tensor | float, importance: Tensor, index: Tensor) -> Reader:
        """From second moments; see :class:`gracile.observe.gram.Gram`."""
        system = xx.clone()
        system.diagonal()[:-1] += pull
        system.diagonal()[-1] += 1e-12 * float(system.diagonal()[-1]) or 1e-12
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(system))
        return cls(inverse=inverse, weights=inverse @ xy, importance=importance, index=index)

    def losses(self, units: Tensor) -> Tensor:
        """Rise of the weighted squared error when each unit goes alone: ``tr(W_u' (P_uu)^-1 W_u D)``."""
        index = self.index[units]  # (candidates, columns a unit)
        block = self.inverse[index[:, :, None], index[:, None, :]]
        weights = self.weights[index]
        solved: Tensor = torch.linalg.solve(block, weights)
        return ((solved * weights).sum(1) * self.importance).sum(1)

    def remove(self, unit: int) -> None:
        """Take one unit out and fit the rest again: a Schur complement of the inverse."""
        index = self.index[unit]
        column = self.inverse[:, index].clone()
        right = torch.cat([self.inverse[index], self.weights[index]], dim=1)
        step = torch.linalg.solve(self.inverse[index][:, index], right)
        size = self.inverse.shape[0]
        self.inverse = self.inverse - column @ step[:, :size]
        self.weights = self.weights - column @ step[:, size:]


def eliminate(readers: list[Reader], units: int) -> tuple[list[int], list[float]]:
    """Remove units one by one, each time the one that costs least, until one is left.

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
        >>> xx, xy = x.T @ x, x.T @ x.sum(1, keepdim=True)
        >>> reader = Reader.of(xx, xy, 1e-6, torch.ones(1), torch.arange(3)[:, None])
        >>> order, rise = eliminate([reader], 3)
        >>> order[0] in (0, 2), rise[0] < 1e-4 < rise[1]
        (True, True)
    """
    alive, order, rises = list(range(units)), [], []
    while len(alive) > 1:
        candidates = torch.tensor(alive)
        loss = torch.stack([r.losses(candidates) for r in readers]).sum(0)
        best = int(loss.argmin())
        order.append(alive.pop(best))
        rises.append(max(float(loss[best]), 0.0))
        for r in readers:
            r.remove(order[-1])
    return order + alive, [*rises, math.inf]
