"""What every form does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

from torch import Tensor, nn

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, kw_only=True)
class Space:
    """Sizes of what a layer reads and gives along the axes of space, for one image; empty for one position.

    A linear layer that is applied at several positions has them as its space.
    """

    read: tuple[int, ...] = ()
    given: tuple[int, ...] = ()


class Form(Protocol):
    """A way to factor the weight of one layer. Ranks are whole numbers, one or more by form."""

    @property
    def name(self) -> str:
        """As recipes call it."""
        ...

    def refuses(self, layer: nn.Module) -> str | None:
        """Why the layer cannot take this form, ``None`` where it can."""
        ...

    def ranks(self, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Ranks worth trying for a weight of this shape, rising; the last is exact."""
        ...

    def factor(
        self, weight: Tensor, ranks: Sequence[int], covariance: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Factors of the weight ``(out, in, *kernel)``.

        Args:
            weight: The weight.
            ranks: From :meth:`ranks`, or any in between.
            covariance: Of what one output reads, ``(in * taps, in * taps)`` in the order of the flattened
                weight: the output's error is made small. Without it, the weight's.
        """
        ...

    def shapes(self, shape: Sequence[int], ranks: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Shapes of the factors of a weight of this shape."""
        ...

    def dense(self, factors: Sequence[Tensor]) -> Tensor:
        """The weight that the factors stand for."""
        ...

    def macs(self, shape: Sequence[int], ranks: Sequence[int], space: Space) -> int:
        """Multiply-adds of the layers that stand for one, for one image."""
        ...

    def build(self, layer: nn.Module, factors: Sequence[Tensor]) -> nn.Sequential:
        """Layers that compute the factors one after the other; the last has the bias."""
        ...


def plain(layer: nn.Module) -> str | None:
    """Why a layer is neither a linear layer nor a convolution that reads all of its inputs.

    Example:
        >>> class Half(nn.Linear):
        ...     def forward(self, x):
        ...         return super().forward(x) / 2
        >>> plain(nn.Linear(2, 2)), plain(Half(2, 2))
        (None, 'Half computes something of its own')
    """
    kind = next((k for k in (*CONVOLUTIONS, nn.Linear) if isinstance(layer, k)), None)
    if kind is None:
        return f"{type(layer).__name__} is neither a convolution nor a linear layer"
    passes = [name for name in ("forward", "_conv_forward") if hasattr(kind, name)]
    if any(getattr(getattr(layer, name), "__func__", None) is not getattr(kind, name) for name in passes):
        return f"{type(layer).__name__} computes something of its own"
    if not isinstance(layer, CONVOLUTIONS):
        return None
    if layer.groups != 1:
        return f"it works in {layer.groups} groups"
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return f"its padding is {layer.padding_mode if layer.padding_mode != 'zeros' else layer.padding!r}"
    return None


def with_taps(layer: nn.Module) -> str | None:
    """Why a layer is not such a convolution with a kernel wider than 1."""
    if (why := plain(layer)) is not None:
        return why
    if not isinstance(layer, CONVOLUTIONS) or prod(layer.kernel_size) == 1:
        return "its kernel has one tap"
    return None


def shares(most: int, count: int = 16) -> tuple[int, ...]:
    """Whole numbers from 1 to ``most``, ``count`` of them at most, evenly spread, the last being ``most``.

    Example:
        >>> shares(8, 4), shares(3)
        ((2, 4, 6, 8), (1, 2, 3))
    """
    return tuple(sorted({max(1, round(most * i / count)) for i in range(1, count + 1)}))


def positions(space: Sequence[int]) -> int:
    """How many there are."""
    return prod(space)


def convolution(
    like: Convolution,
    weight: Tensor,
    *,
    stride: Sequence[int] | None = None,
    padding: Sequence[int] | None = None,
    dilation: Sequence[int] | None = None,
    groups: int = 1,
) -> Convolution:
    """A convolution with this weight, of the kind, device and type of another, without a bias."""
    kind = next(c for c in CONVOLUTIONS if isinstance(like, c))
    axes = weight.dim() - 2
    made = kind(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),  # type: ignore[arg-type]
        stride=tuple(stride or [1] * axes),  # type: ignore[arg-type]
        padding=tuple(padding or [0] * axes),  # type: ignore[arg-type]
        dilation=tuple(dilation or [1] * axes),  # type: ignore[arg-type]
        groups=groups,
        bias=False,
        device="meta",
    )
    made.weight = nn.Parameter(weight.to(like.weight).contiguous())
    return made


def with_bias(layers: Sequence[nn.Module], layer: nn.Module) -> nn.Sequential:
    """The layers in a row, the last with the bias of the layer that they stand for."""
    bias = layer.bias
    last = layers[-1]
    assert isinstance(last, (*CONVOLUTIONS, nn.Linear))
    if isinstance(bias, Tensor):
        last.bias = nn.Parameter(bias.detach().clone())
    return nn.Sequential(*layers).train(layer.training)
