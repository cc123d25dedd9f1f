"""A codebook that keeps a layer's output: which values, and which of them each weight takes.

Sources: values by weighted k-means (Han et al., arXiv 1510.00149, section 3; the weights are second moments
of the inputs, after Choi et al., arXiv 1612.01543), values to weights one input after the other so that the
error of each is made up for (Frantar et al., GPTQ, arXiv 2210.17323). Then, for the values that each weight
took, the values themselves are solved for by least squares, and so on in turns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..rounding.least_squares import compensate
from .kmeans import Start, kmeans, nearest

_AT_ONCE = 1 << 24  # numbers of a product held in memory


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """``centroids`` rise; ``codes`` have the shape of the weights; ``error`` is a share of their variance."""

    centroids: Tensor
    codes: Tensor
    error: float

    @property
    def weight(self) -> Tensor:
        """The weights with their new values, float32."""
        return self.centroids.float()[self.codes]


def fit_values(weight: Tensor, bits: int, start: Start, seed: int) -> Fitted:
    """Plain k-means of a tensor: every weight to the nearest value; zeros keep a value of their own.

    Args:
        weight: Any shape, finite.
        bits: ``2 ** bits`` values.
        start: Where centroids begin.
        seed: For the random start.

    Example:
        >>> fit_values(torch.tensor([0.0, 1.0, 1.2, -3.0]), 2, "linear", 0).weight.tolist()
        [0.0, 1.0, 1.2000000476837158, -3.0]
    """
    values = weight.detach().double().reshape(-1)
    centroids = _begin(values, torch.ones_like(values), bits, start, seed)
    codes = _codes(values, centroids).reshape(weight.shape)
    lost = (weight.double() - centroids[codes]).square().sum()
    return Fitted(centroids=centroids, codes=codes, error=_share(lost, values.square().sum()))


def fit_output(
    weight: Tensor, moments: Tensor, bits: int, start: Start, seed: int, *, rounds: int, damping: float
) -> Fitted:
    """Values and codes that make ``(weight - q) moments (weight - q)'`` small, summed over rows.

    Args:
        weight: ``(groups, out, inputs)``.
        moments: Of the inputs, ``(groups, inputs, inputs)``.
        bits: ``2 ** bits`` values for all rows of all groups.
        start: Where centroids begin.
        seed: For the random start.
        rounds: How often values and codes are found in turns, at least 1.
        damping: Share of the mean moment added to the diagonal.

    Example:
        >>> both_the_same = torch.ones(1, 2, 2)  # so only the sum of the two weights matters
        >>> weight = torch.tensor([[[0.3, 0.7], [1.0, 0.0]]])
        >>> fitted = fit_output(weight, both_the_same, 1, "linear", 0, rounds=3, damping=0.01)
        >>> fitted.centroids.tolist()[0], fitted.codes[0, 1, 1].item()
        (0.0, 0)
    """
    moments = moments.double()
    spread = moments.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12).reshape(-1, 1, 1)
    eye = torch.eye(moments.shape[1], dtype=torch.float64, device=moments.device)
    damped = moments + damping * spread * eye
    importance = damped.diagonal(dim1=1, dim2=2)[:, None, :].expand(weight.shape)
    centroids = _begin(weight.double().reshape(-1), importance.reshape(-1), bits, start, seed)
    norm = _error(weight.double(), moments)
    best: Fitted | None = None
    for _ in range(rounds):
        codes = _compensated(weight, moments, centroids, damping)
        for values in (centroids, _solved(weight, codes, centroids, damped)):
            lost = _error(weight.double() - values[codes], moments)
            if best is None or _share(lost, norm) < best.error:
                best = Fitted(centroids=values, codes=codes, error=_share(lost, norm))
        centroids = values
    assert best is not None
    return _tidied(best)


def _begin(values: Tensor, importance: Tensor, bits: int, start: Start, seed: int) -> Tensor:
    """Rising centroids; zero is one of them where weights are zero."""
    alive = values != 0
    own = 0 if bool(alive.all()) else 1
    if not bool(alive.any()):
        return torch.zeros(1, dtype=torch.float64, device=values.device)
    found = kmeans(
        values[alive].cpu().numpy().astype(np.float64),
        2**bits - own,
        weights=importance[alive].cpu().numpy().astype(np.float64),
        start=start,
        seed=seed,
    )
    found = found[found != 0] if own else found
    every = np.sort(np.concatenate([found, np.zeros(own)]))
    return torch.from_numpy(every).to(values.device)


def _codes(values: Tensor, centroids: Tensor) -> Tensor:
    """The nearest value of each weight; zeros take zero."""
    flat, table = values.detach().double().cpu().numpy().reshape(-1), centroids.cpu().numpy()
    codes = nearest(flat, table)
    zero = np.flatnonzero(table == 0)
    if len(zero):
        codes[flat == 0] = zero[0]
    return torch.from_numpy(codes).to(values.device).reshape(values.shape)


def _compensated(weight: Tensor, moments: Tensor, centroids: Tensor, damping: float) -> Tensor:
    table = centroids.to(weight.dtype)
    borders = (table[1:] + table[:-1]) / 2

    def to_nearest(column: Tensor, _: int) -> Tensor:
        return table[torch.bucketize(column.contiguous(), borders)]

    return _codes(compensate(weight, moments, to_nearest, damping), centroids)


def _solved(weight: Tensor, codes: Tensor, centroids: Tensor, moments: Tensor) -> Tensor:
    """The values that keep the output best for given codes: a least-squares problem with a few unknowns.

    With ``S`` (inputs, values) the one-hot codes of a row, ``sum(S' H S) c = sum(S' H w)``.
    """
    count = len(centroids)
    left = torch.zeros(count, count, dtype=torch.float64, device=weight.device)
    right = torch.zeros(count, dtype=torch.float64, device=weight.device)
    for group in range(len(weight)):
        step = max(_AT_ONCE // (weight.shape[2] * count), 1)
        for at in range(0, weight.shape[1], step):
            rows, own = weight[group, at : at + step].double(), codes[group, at : at + step]
            chosen = torch.nn.functional.one_hot(own, count).to(moments.dtype)  # (rows, inputs, values)
            flat = chosen.transpose(0, 1).reshape(len(moments[group]), -1)  # (inputs, rows * values)
            pulled = (moments[group] @ flat).reshape(flat.shape[0], len(rows), count).transpose(0, 1)
            left += chosen.reshape(-1, count).T @ pulled.reshape(-1, count)
            right += pulled.reshape(-1, count).T @ rows.reshape(-1)
    free = centroids != 0
    used = free & (left.diagonal() > 0)
    solved = centroids.clone()
    if bool(used.any()):
        part = left[used][:, used]
        ridge = 1e-9 * part.diagonal().mean() * torch.eye(len(part), dtype=torch.float64, device=part.device)
        solved[used] = torch.linalg.solve(part + ridge, right[used] + ridge @ centroids[used])
    # Where neighbours changed places, what was solved for is not a codebook in order.
    return solved if bool((solved[1:] > solved[:-1]).all()) else centroids


def _tidied(fitted: Fitted) -> Fitted:
    """Values that float32 cannot tell apart, or that no weight takes, go."""
    values = fitted.centroids.float()[fitted.codes]
    centroids, codes = torch.unique(values, return_inverse=True)
    return Fitted(centroids=centroids.double(), codes=codes.reshape(values.shape), error=fitted.error)


def _error(lost: Tensor, moments: Tensor) -> Tensor:
    return torch.einsum("gri,gij,grj->", lost, moments, lost).clamp(min=0)


def _share(lost: Tensor, norm: Tensor) -> float:
    return float(lost / norm) if float(norm) > 0 else 0.0
