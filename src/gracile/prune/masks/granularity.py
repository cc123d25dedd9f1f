"""What is masked together: single weights, kernels, channels, blocks, or n of every m.

Source: Mao, Han, Pool, Li, Liu, Wang and Dally, "Exploring the granularity of sparsity in convolutional
neural networks", CVPR workshops 2017, arXiv 1705.08922, figure 1 (elements, kernels, filters); blocks after
Narang, Undersander and Diamos, "Block-sparse recurrent neural networks", 2017, arXiv 1711.02782, section 3.1;
N:M after Zhou et al., "Learning N:M fine-grained structured sparse neural networks from scratch", ICLR 2021,
arXiv 2102.04010, section 3.1. Where we differ: channels of grouped convolutions are told apart by group, and
what does not fill a whole block or group of m is treated as if zeros filled it up.

An *entry* is what stays or goes as one. Weights are seen as ``(outputs, inputs of a group, *kernel)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gracile.errors import BadArgument

Ids = NDArray[np.int64]
Shape = tuple[int, ...]


@runtime_checkable
class Granularity(Protocol):
    """Divides a weight into entries."""

    @property
    def text(self) -> str:
        """How plans and tables call it."""
        ...

    def entries(self, shape: Shape, groups: int) -> Ids:
        """Entry of every weight.

        Args:
            shape: ``(outputs, inputs of a group, *kernel)``.
            groups: Of a grouped convolution, else 1.

        Returns:
            Numbers from 0, each up to the largest used, in an array of ``shape``.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Element:
    """Single weights.

    Example:
        >>> Element().entries((2, 2), 1).tolist()
        [[0, 1], [2, 3]]
    """

    text = "element"

    def entries(self, shape: Shape, groups: int) -> Ids:
        """One entry a weight."""
        return np.arange(math.prod(shape)).reshape(shape)


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """2-D kernels: what one input channel adds to one output channel. In linear layers, single weights.

    Example:
        >>> Kernel().entries((1, 2, 1, 2), 1).tolist()
        [[[[0, 0]], [[1, 1]]]]
    """

    text = "kernel"

    def entries(self, shape: Shape, groups: int) -> Ids:
        """One entry a pair of output and input."""
        ids = np.arange(shape[0] * shape[1]).reshape(shape[:2])
        return _spread(ids, shape)


@dataclass(frozen=True, kw_only=True)
class InputChannel:
    """All weights that read one input channel of the layer.

    Example:
        >>> InputChannel().entries((2, 3), 1).tolist()
        [[0, 1, 2], [0, 1, 2]]
        >>> InputChannel().entries((2, 1), 2).tolist()
        [[0], [1]]
    """

    text = "input channel"

    def entries(self, shape: Shape, groups: int) -> Ids:
        """One entry an input channel, counted over all groups."""
        group = np.arange(shape[0]) // (shape[0] // groups)
        return _spread(group[:, None] * shape[1] + np.arange(shape[1]), shape)


@dataclass(frozen=True, kw_only=True)
class OutputChannel:
    """All weights that write one output channel. Its bias and batch norm stay: the channel becomes constant.

    Example:
        >>> OutputChannel().entries((2, 3), 1).tolist()
        [[0, 0, 0], [1, 1, 1]]
    """

    text = "output channel"

    def entries(self, shape: Shape, groups: int) -> Ids:
        """One entry an output channel."""
        return _spread(np.arange(shape[0]), shape)


@dataclass(frozen=True, kw_only=True)
class Block:
    """Blocks of ``rows`` outputs by ``columns`` of the flattened rest (inputs, then the kernel's taps).

    Example:
        >>> Block(rows=1, columns=2).entries((2, 3), 1).tolist()
        [[0, 0, 1], [2, 2, 3]]
    """

    rows: int = 4
    columns: int = 4

    def __post_init__(self) -> None:
        _at_least_one(rows=self.rows, columns=self.columns)

    @property
    def text(self) -> str:
        """``block 4x4``."""
        return f"block {self.rows}x{self.columns}"

    def entries(self, shape: Shape, groups: int) -> Ids:
        """One entry a block; those at the edges may be smaller."""
        width = math.prod(shape[1:])
        across = -(-width // self.columns)
        ids = np.arange(shape[0])[:, None] // self.rows * across + np.arange(width) // self.columns
        return ids.reshape(shape)


@dataclass(frozen=True, kw_only=True)
class NofM:
    """At most ``n`` of every ``m`` weights that follow one another along the input axis stay.

    The sparsity is ``1 - n / m``. A rest of fewer than ``m`` inputs keeps at most ``n``, as if zeros filled
    it up, which is what runtimes do. 2:4 is what sparse tensor cores of NVIDIA run.

    Example:
        >>> NofM(n=1, m=2).keep(np.array([[3.0, 1.0, 2.0]]), 0.5).tolist()
        [[True, False, True]]
    """

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        _at_least_one(n=self.n, m=self.m)
        if self.n > self.m:
            raise BadArgument("n", wanted=f"at most m={self.m}", found=f"n={self.n}")

    @property
    def text(self) -> str:
        """``2:4``."""
        return f"{self.n}:{self.m}"

    @property
    def sparsity(self) -> float:
        """``1 - n / m``."""
        return 1 - self.n / self.m

    def entries(self, shape: Shape, groups: int) -> Ids:
        """One entry a weight."""
        return Element().entries(shape, groups)

    def keep(self, scores: NDArray[np.float64], sparsity: float) -> NDArray[np.bool_]:
        """The highest scores of every ``m``; equal scores go in the order of the inputs.

        Args:
            scores: ``(outputs, inputs of a group, *kernel)``.
            sparsity: From 0 to ``1 - n / m``; below the end of a gradual run, more than ``n`` stay.
        """
        stay = self.m - int(sparsity * self.m + 1e-9)
        last = np.moveaxis(scores, 1, -1)  # (outputs, *kernel, inputs)
        inputs = last.shape[-1]
        missing = -inputs % self.m
        filled = np.pad(last, [(0, 0)] * (last.ndim - 1) + [(0, missing)], constant_values=-np.inf)
        pools = filled.reshape(*last.shape[:-1], -1, self.m)
        order = np.argsort(-pools, axis=-1, kind="stable")
        kept = np.zeros(pools.shape, dtype=bool)
        np.put_along_axis(kept, order[..., :stay], True, axis=-1)
        kept = kept.reshape(filled.shape)[..., :inputs]
        return np.ascontiguousarray(np.moveaxis(kept, -1, 1))


def _spread(ids: Ids, shape: Shape) -> Ids:
    """Give the axes that ``ids`` lacks the same entry everywhere."""
    return np.broadcast_to(ids.reshape(*ids.shape, *[1] * (len(shape) - ids.ndim)), shape)


def _at_least_one(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise BadArgument(name, wanted="at least 1", found=f"{name}={size}")
