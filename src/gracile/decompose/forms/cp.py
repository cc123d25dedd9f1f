"""CP decomposition: a convolution as 1x1, one depthwise convolution an axis, and 1x1.

Source: Lebedev, Ganin, Rakhuba, Oseledets and Lempitsky, "Speeding-up convolutional neural networks using
fine-tuned CP-decomposition", ICLR 2015, arXiv 1412.6553, section 3; degenerate factors, which grow
against one another until fine-tuning fails, are the subject of Phan et al., "Stable low-rank tensor
decomposition for compression of convolutional neural network", ECCV 2020, arXiv 2008.05441.

``W[o, i, a, b] ~ sum_r O[o, r] I[i, r] A[a, r] B[b, r]``. Where we differ: the start is the largest terms
of nested singular value decompositions, which are orthogonal (no random draw), alternating least squares are
damped, columns are balanced to equal norms after each turn, and the last refinement pays for the factors'
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from .form import CONVOLUTIONS, Space, convolution, positions, shares, with_bias, with_taps
from .refine import refine

_TURNS = 40
_DAMPING = 1e-6
_PULL = 1e-4


@dataclass(frozen=True)
class CP:
    """Factor convolutions whose kernel is wider than 1; one rank.

    Example:
        >>> layer = nn.Conv2d(6, 8, 3, padding=1)
        >>> form = CP()
        >>> small = form.build(layer, form.factor(layer.weight, (5,)))
        >>> [tuple(part.weight.shape) for part in small]
        [(5, 6, 1, 1), (5, 1, 3, 1), (5, 1, 1, 3), (8, 5, 1, 1)]
    """

    name = "cp"

    def refuses(self, layer: nn.Module) -> str | None:
        """Linear layers and 1x1 convolutions."""
        return with_taps(layer)

    def ranks(self, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Sixteenths of the rank at which the multiply-adds of channels are those of the layer.

        A rank that is exact for every weight is far above what pays; so the last of these is not exact.
        """
        most = max(1, prod(shape) // (shape[0] + shape[1] + sum(shape[2:])))
        return tuple((r,) for r in shares(most))

    def factor(
        self, weight: Tensor, ranks: Sequence[int], covariance: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """``O (out, r)``, ``I (in, r)`` and ``(k, r)`` for each axis of the kernel."""
        w = weight.detach().double()
        modes = [w.movedim(axis, 0).flatten(1) for axis in range(w.dim())]
        factors = _start(w, ranks[0])
        for _ in range(_TURNS):
            for axis, mode in enumerate(modes):
                others = [f for i, f in enumerate(factors) if i != axis]
                gram = torch.ones(ranks[0], ranks[0], dtype=w.dtype, device=w.device)
                for other in others:
                    gram = gram * (other.T @ other)
                ridge = _DAMPING * gram.diagonal().mean().clamp(min=1e-30)
                gram = gram + ridge * torch.eye(ranks[0], dtype=w.dtype, device=w.device)
                factors[axis] = torch.linalg.solve(gram, (mode @ _khatri_rao(others)).T).T
            factors = _balanced(factors)
        found = tuple(f.to(weight) for f in factors)
        return refine(found, self.dense, weight, covariance, pull=_PULL)

    def shapes(self, shape: Sequence[int], ranks: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """One for each axis of the weight."""
        return tuple((size, ranks[0]) for size in shape)

    def dense(self, factors: Sequence[Tensor]) -> Tensor:
        """Sum over the rank."""
        shape = [f.shape[0] for f in factors]
        return (factors[0] @ _khatri_rao(list(factors[1:])).T).reshape(shape)

    def macs(self, shape: Sequence[int], ranks: Sequence[int], space: Space) -> int:
        """1x1 at the input's positions, then axis after axis, 1x1 at the output's."""
        total, sizes = shape[1] * positions(space.read), list(space.read)
        for axis, taps in enumerate(shape[2:]):
            sizes[axis] = space.given[axis]
            total += taps * positions(sizes)
        return ranks[0] * (total + shape[0] * positions(space.given))

    def build(self, layer: nn.Module, factors: Sequence[Tensor]) -> nn.Sequential:
        """1x1, one depthwise convolution an axis with its stride and padding, 1x1."""
        outs, ins, *axes = factors
        assert isinstance(layer, CONVOLUTIONS)
        count, rank = len(axes), ins.shape[1]
        tail = (...,) + (None,) * count
        parts: list[nn.Module] = [convolution(layer, ins.T[tail])]
        for i, factor in enumerate(axes):
            shape = [rank, 1, *(len(factor) if j == i else 1 for j in range(count))]

            def along(values: Sequence[int], other: int, i: int = i) -> list[int]:
                return [v if j == i else other for j, v in enumerate(values)]

            parts.append(
                convolution(
                    layer,
                    factor.T.reshape(shape),
                    stride=along(layer.stride, 1),
                    padding=along(layer.padding, 0),  # type: ignore[arg-type]
                    dilation=along(layer.dilation, 1),
                    groups=rank,
                )
            )
        return with_bias([*parts, convolution(layer, outs[tail])], layer)


def _start(weight: Tensor, rank: int) -> list[Tensor]:
    """The largest of the orthogonal rank-1 terms that nested singular value decompositions give.

    ``W = sum_i s_i u_i v_i'``, each ``v_i`` again, axis after axis. All terms together are the weight, none
    cancels another, and where there are too few they are taken again.
    """
    terms = _terms(weight, rank)
    chosen = [terms[i % len(terms)] for i in range(rank)]
    share = 1.0 / weight.dim()
    return [
        torch.stack([size**share * vectors[axis] for size, vectors in chosen], 1)
        for axis in range(weight.dim())
    ]


def _terms(tensor: Tensor, most: int) -> list[tuple[float, list[Tensor]]]:
    """Sizes and unit vectors of the largest terms, falling."""
    if tensor.dim() == 1:
        size = tensor.norm().clamp(min=1e-30)
        return [(float(size), [tensor / size])]
    left, values, right = torch.linalg.svd(tensor.flatten(1), full_matrices=False)
    found = []
    for i, value in enumerate(values[:most].tolist()):
        inner = _terms(right[i].reshape(tensor.shape[1:]), most)
        found += [(value * size, [left[:, i], *vectors]) for size, vectors in inner]
    return sorted(found, key=lambda term: -term[0])[:most]


def _khatri_rao(factors: list[Tensor]) -> Tensor:
    """Column by column Kronecker product; rows in the order of a flattened tensor."""
    found = factors[0]
    for factor in factors[1:]:
        found = (found[:, None] * factor[None]).reshape(-1, found.shape[1])
    return found


def _balanced(factors: list[Tensor]) -> list[Tensor]:
    """The same sum with columns of equal norm in every factor."""
    norms = torch.stack([f.norm(dim=0).clamp(min=1e-30) for f in factors])
    size = norms.log().mean(0).exp()
    return [f * (size / n) for f, n in zip(factors, norms, strict=True)]
