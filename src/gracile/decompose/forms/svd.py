"""Truncated singular value decomposition: a layer as a narrow one and a 1x1 one behind it.

Source: Denton, Zaremba, Bruna, LeCun and Fergus, "Exploiting linear structure within convolutional networks
for efficient evaluation", NIPS 2014, arXiv 1404.0736, section 3.2; for convolutions as in Zhang, Zou, He and
Sun, "Accelerating very deep convolutional networks for classification and detection", TPAMI 2016, arXiv
1505.06798, section 3.1. Data-aware: their equation 5, principal components of the output.

With the weight as a matrix ``W (out, in * taps)``, ``W ~ U V``, ``U (out, r)``, ``V (r, in * taps)``. Without
data ``U S V'`` are the first ``r`` singular triples. With the covariance ``C`` of the inputs the error
``tr((W - U V) C (W - U V)')`` is least for ``U`` the first ``r`` eigenvectors of ``W C W'`` and ``V = U' W``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from .form import CONVOLUTIONS, Space, convolution, plain, positions, shares, with_bias


@dataclass(frozen=True)
class SVD:
    """Factor linear layers and convolutions of any kernel; one rank. Exact at rank ``min(out, in * taps)``.

    Cheaper than the layer when ``r < out * n / (out + n)``, ``n = in * taps``.

    Example:
        >>> layer = nn.Conv2d(6, 8, 3, padding=1)
        >>> form = SVD()
        >>> small = form.build(layer, form.factor(layer.weight, (3,)))
        >>> [tuple(part.weight.shape) for part in small]
        [(3, 6, 3, 3), (8, 3, 1, 1)]
    """

    name = "svd"

    def refuses(self, layer: nn.Module) -> str | None:
        """Grouped convolutions and padding other than zeros."""
        return plain(layer)

    def ranks(self, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Sixteenths of the full rank."""
        return tuple((r,) for r in shares(min(shape[0], prod(shape[1:]))))

    def factor(
        self, weight: Tensor, ranks: Sequence[int], covariance: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """``(out, r)`` and ``(r, in, *kernel)``."""
        matrix = weight.detach().flatten(1).double()
        if covariance is None:
            left, values, right = torch.linalg.svd(matrix, full_matrices=False)
            root = values[: ranks[0]].sqrt()
            first, second = left[:, : ranks[0]] * root, root[:, None] * right[: ranks[0]]
        else:
            _, vectors = torch.linalg.eigh(matrix @ covariance.to(matrix) @ matrix.T)
            first = vectors.flip(1)[:, : ranks[0]]
            second = first.T @ matrix
        return first.to(weight), second.reshape(-1, *weight.shape[1:]).to(weight)

    def errors(self, weight: Tensor, covariance: Tensor | None = None) -> Tensor:
        """What :meth:`factor` leaves of the output's energy at every rank, in one decomposition.

        With ``l_i`` the eigenvalues of ``W C W'`` (squared singular values without a covariance), entry ``r``
        is ``sum(l_i, i > r) / sum(l_i)``.

        Returns:
            ``(min(out, in * taps) + 1,)``, double; first 1, last 0 but for rounding.

        Example:
            >>> SVD().errors(torch.diag(torch.tensor([2.0, 1.0]))).tolist()
            [1.0, 0.2, 0.0]
        """
        matrix = weight.detach().flatten(1).double()
        if covariance is None:
            energies = torch.linalg.svdvals(matrix).square()
        else:
            energies = torch.linalg.eigvalsh(matrix @ covariance.to(matrix) @ matrix.T).flip(0).clamp(min=0)
        energies = energies[: min(matrix.shape)]
        left = energies.sum() - torch.cat([energies.new_zeros(1), energies.cumsum(0)])
        found: Tensor = left.clamp(min=0) / energies.sum().clamp(min=1e-30)
        return found

    def shapes(self, shape: Sequence[int], ranks: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Of ``U`` and ``V``."""
        return (shape[0], ranks[0]), (ranks[0], *shape[1:])

    def dense(self, factors: Sequence[Tensor]) -> Tensor:
        """``U V``."""
        first, second = factors
        found: Tensor = torch.tensordot(first, second, dims=1)
        return found

    def macs(self, shape: Sequence[int], ranks: Sequence[int], space: Space) -> int:
        """Both at the output's positions."""
        return ranks[0] * (shape[0] + prod(shape[1:])) * positions(space.given)

    def build(self, layer: nn.Module, factors: Sequence[Tensor]) -> nn.Sequential:
        """The narrow layer with the kernel, stride and padding, then the mixing one."""
        first, second = factors
        if isinstance(layer, nn.Linear):
            return with_bias([_linear(layer, second), _linear(layer, first)], layer)
        assert isinstance(layer, CONVOLUTIONS)
        narrow = convolution(
            layer,
            second,
            stride=layer.stride,
            padding=layer.padding,  # type: ignore[arg-type]
            dilation=layer.dilation,
        )
        return with_bias([narrow, convolution(layer, first[(...,) + (None,) * (second.dim() - 2)])], layer)


def _linear(like: nn.Linear, weight: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    made.weight = nn.Parameter(weight.to(like.weight).contiguous())
    return made
