"""Labels on tensor elements, kept lazy, and the ties between them.

A *plane* is an int64 tensor with the full shape of the value it describes; along every axis where labels do
not vary its stride is 0, so that it costs one element there. Label 0 marks an element that cannot go.
A value may carry several planes (a weight: one that varies with its outputs, one with its inputs): an element
goes when any of its labels goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

Plane = Tensor


def varying(plane: Plane) -> list[int]:
    """Axes along which the labels vary.

    Example:
        >>> varying(torch.arange(3).view(1, 3, 1).expand(2, 3, 4))
        [1]
    """
    return [d for d in range(plane.dim()) if plane.size(d) > 1 and plane.stride(d) != 0]


def core(plane: Plane) -> Tensor:
    """The plane with every constant axis narrowed to one entry."""
    for d in range(plane.dim()):
        if plane.size(d) > 1 and plane.stride(d) == 0:
            plane = plane.narrow(d, 0, 1)
    return plane


def shrink(plane: Plane) -> Plane:
    """The same labels with stride 0 along every axis on which they turn out not to vary."""
    shape, small = plane.shape, core(plane)
    for d in range(small.dim()):
        if small.size(d) > 1 and bool((small == small.narrow(d, 0, 1)).all()):
            small = small.narrow(d, 0, 1)
    return small.expand(shape)


def spread(vector: Tensor, shape: tuple[int, ...], dim: int) -> Plane:
    """A plane of ``shape`` whose labels are ``vector`` along ``dim``."""
    view = [1] * len(shape)
    view[dim] = -1
    return vector.reshape(view).expand(shape)


def along(plane: Plane, dim: int) -> Tensor:
    """The label vector of a plane that varies along ``dim`` only."""
    small = core(plane)
    return (
        small.reshape(-1) if small.numel() == plane.size(dim) else small.reshape(-1).expand(plane.size(dim))
    )


@dataclass(frozen=True)
class Block:
    """Labels ``start .. start + size - 1`` belong to the entries of one axis of one parameter."""

    param: str
    axis: int
    start: int
    size: int


@dataclass(frozen=True)
class Freeze:
    """Why labels cannot go, and the graph node that says so."""

    why: str
    node: str


@dataclass
class Labels:
    """Hands out labels and collects ties; the connected components are what must go together."""

    blocks: list[Block] = field(default_factory=list)
    freezes: list[Freeze] = field(default_factory=list)
    _next: int = 1
    _edges: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    _frozen: list[tuple[np.ndarray, int]] = field(default_factory=list)
    _by_reason: dict[tuple[str, str], int] = field(default_factory=dict)

    def block(self, param: str, axis: int, size: int) -> Tensor:
        """Fresh labels for one axis of a parameter."""
        self.blocks.append(Block(param, axis, self._next, size))
        self._next += size
        return torch.arange(self._next - size, self._next)

    def fresh(self, count: int) -> Tensor:
        """Labels of elements that belong to no parameter."""
        self._next += count
        return torch.arange(self._next - count, self._next)

    def tie(self, a: Plane, b: Plane, node: str) -> None:
        """Elements that meet go together; one that meets label 0 stays."""
        shape = torch.broadcast_shapes(a.shape, b.shape)  # type: ignore[no-untyped-call]
        a, b = a.expand(shape), b.expand(shape)
        for d in range(a.dim()):
            if a.size(d) > 1 and a.stride(d) == 0 and b.stride(d) == 0:
                a, b = a.narrow(d, 0, 1), b.narrow(d, 0, 1)
        x, y = a.reshape(-1).numpy(), b.reshape(-1).numpy()
        differ = x != y
        x, y = x[differ], y[differ]
        fixed = (x == 0) | (y == 0)
        if fixed.any():
            self._freeze(
                x[fixed] + y[fixed], "meets values that stay (an input, padding or a constant)", node
            )
        if not fixed.all():
            self._edges.append((x[~fixed], y[~fixed]))

    def freeze(self, plane: Plane, why: str, node: str) -> None:
        """The labels of ``plane`` stay."""
        labels = core(plane).reshape(-1).numpy()
        self._freeze(labels[labels != 0], why, node)

    def _freeze(self, labels: np.ndarray, why: str, node: str) -> None:
        if labels.size:
            reason = self._by_reason.setdefault((why, node), len(self.freezes))
            if reason == len(self.freezes):
                self.freezes.append(Freeze(why, node))
            self._frozen.append((labels, reason))

    def components(self) -> tuple[np.ndarray, dict[int, list[Freeze]]]:
        """Component of every label (index = label; 0 is the fixed one), and why components are frozen.

        Frozen components are given as a map from component to its reasons.
        """
        total = self._next + len(self.freezes)
        ends = list(self._edges)
        ends += [(labels, np.full(labels.shape, self._next + reason)) for labels, reason in self._frozen]
        a = np.concatenate([e[0] for e in ends]) if ends else np.zeros(0, dtype=np.int64)
        b = np.concatenate([e[1] for e in ends]) if ends else np.zeros(0, dtype=np.int64)
        graph = coo_matrix((np.ones(a.size, dtype=np.int8), (a, b)), shape=(total, total))
        _, component = connected_components(graph, directed=False)
        why: dict[int, list[Freeze]] = {}
        for reason, freeze in enumerate(self.freezes):
            why.setdefault(int(component[self._next + reason]), []).append(freeze)
        return component[: self._next], why
