"""The proximal operator of the group norm: every unit's norm loses a threshold, and none goes below zero.

Source: Zhou, Alvarez and Porikli, "Less is More: Towards Compact CNNs", ECCV 2016, for a group of weights
``w``: ``w <- max(||w|| - tau, 0) w / ||w||``, one forward-backward step for the penalty ``tau sum ||w||``.
The relative threshold is from Marelli, "Implémentation d'un algorithme de réduction de taille des réseaux de
neurones", Idiap-RR-03-2018, section 4.3. Where we differ: channels that several layers write, or read,
together (around a residual sum) are one group with one norm, and no threshold empties a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.graph import Group


class Threshold(Protocol):
    """How much every norm of a group loses."""

    def __call__(self, group: str, norms: Tensor) -> float:
        """Threshold for the group called ``group``, whose units have ``norms`` ``(units,)``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Absolute:
    """The same threshold every time (*basic* in the report).

    Args:
        tau: What every norm loses, above 0; a mapping gives each group its own, and groups that it does not
            name lose nothing.

    Raises:
        BadArgument: A threshold is not above 0.

    Example:
        >>> Absolute(tau={"conv1": 0.5})("conv2", torch.ones(3))
        0.0
    """

    tau: float | Mapping[str, float]

    def __post_init__(self) -> None:
        values = self.tau.values() if isinstance(self.tau, Mapping) else [self.tau]
        if not all(value > 0 for value in values):
            raise BadArgument("tau", wanted="above 0", found=f"tau={self.tau!r}")

    def __call__(self, group: str, norms: Tensor) -> float:
        """``tau``, or the group's own."""
        return float(self.tau.get(group, 0.0) if isinstance(self.tau, Mapping) else self.tau)


@dataclass(frozen=True, kw_only=True)
class Relative:
    """A share of the group's largest norm: ``tau = ratio max ||w||``. The largest unit can never go.

    Args:
        ratio: Above 0, below 1. About 0.1 every second epoch, or about 0.8 every eight to ten, are the
            report's good settings.

    Raises:
        BadArgument: ``ratio`` lies outside its range.

    Example:
        >>> Relative(ratio=0.25)("conv1", torch.tensor([1.0, 4.0]))
        1.0
    """

    ratio: float

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise BadArgument("ratio", wanted="above 0, below 1", found=f"ratio={self.ratio!r}")

    def __call__(self, group: str, norms: Tensor) -> float:
        """``ratio max ||w||``."""
        return self.ratio * float(norms.max())


def proximal(norms: Tensor, tau: float) -> Tensor:
    """Factors ``max(||w|| - tau, 0) / ||w||`` of the units of a group.

    Where every unit would go, the one with the largest norm is left as it was.

    Args:
        norms: ``(units,)``, at least 0.
        tau: At least 0.

    Returns:
        ``(units,)``, from 0 (the unit goes) to 1.

    Example:
        >>> proximal(torch.tensor([0.5, 2.0]), 1.0).tolist()
        [0.0, 0.5]
        >>> proximal(torch.tensor([0.5, 2.0]), 3.0).tolist()
        [0.0, 1.0]
    """
    kept = (norms - tau).clamp(min=0)
    factors = torch.where(norms > 0, kept / norms, torch.zeros_like(norms))
    if not bool(factors.any()):
        factors[int(norms.argmax())] = 1.0
    return factors


def group_norms(model: nn.Module, group: Group, role: str = "write") -> Tensor:
    """Euclidean norm of the weights that write (or read) each unit of a group, over all its layers.

    Biases do not count.

    Args:
        model: The model that the group was traced on.
        group: Channels that go together.
        role: ``"write"`` or ``"read"``.

    Returns:
        ``(units,)`` in float64 on the CPU.

    Example:
        >>> from gracile.graph import capture, trace
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        >>> (group,) = trace(capture(net, (torch.zeros(1, 2),))).groups
        >>> group_norms(net, group).tolist()
        [5.0, 1.0]
    """
    squares = torch.zeros(group.units, dtype=torch.float64)
    for slot in group.slots:
        if slot.role == role:
            weight = model.get_parameter(slot.param).detach().double().cpu()
            at = weight.movedim(slot.axis, 0).flatten(1).square().sum(1)  # (entries of the axis,)
            squares += at[torch.from_numpy(slot.index)].sum(1)
    return squares.sqrt()


def scale_(model: nn.Module, group: Group, factors: Tensor, role: str = "write") -> None:
    """Multiply the weights that write (or read) each unit by its factor, in place."""
    for slot in group.slots:
        if slot.role == role:
            weight = model.get_parameter(slot.param)
            along = torch.ones(weight.shape[slot.axis], dtype=weight.dtype)
            along[torch.from_numpy(slot.index)] = factors.to(weight.dtype)[:, None]
            shape = [1] * weight.dim()
            shape[slot.axis] = -1
            with torch.no_grad():
                weight.mul_(along.view(shape).to(weight.device))
