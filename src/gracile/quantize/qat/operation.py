"""What a layer does with its weight: a convolution, a transposed one, or a matrix product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from gracile.errors import BadArgument, UnsupportedOperation, did_you_mean

_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "conv1d": F.conv1d,
    "conv2d": F.conv2d,
    "conv3d": F.conv3d,
    "conv_transpose1d": F.conv_transpose1d,
    "conv_transpose2d": F.conv_transpose2d,
    "conv_transpose3d": F.conv_transpose3d,
    "linear": F.linear,
}
Sizes = int | tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A linear operation that is handed its weight and bias at each call.

    Args:
        kind: ``conv1d``, ``conv2d``, ``conv3d``, ``conv_transpose1d``, ``conv_transpose2d``,
            ``conv_transpose3d`` or ``linear``.
        stride: As in PyTorch, one number or one an axis; ``linear`` has none of these.
        padding: With zeros; ``"same"`` and ``"valid"`` where PyTorch takes them.
        dilation: As in PyTorch.
        groups: At least 1.
        output_padding: Of transposed convolutions only.

    Raises:
        BadArgument: An unknown kind, or numbers that the kind does not have.

    Example:
        >>> import torch
        >>> double = Operation(kind="conv1d", stride=2)
        >>> double(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[10.0]]])).tolist()
        [[[10.0, 30.0]]]
    """

    kind: str
    stride: Sizes = 1
    padding: Sizes | str = 0
    dilation: Sizes = 1
    groups: int = 1
    output_padding: Sizes = 0

    def __post_init__(self) -> None:
        if self.kind not in _FUNCTIONS:
            known = "a convolution or linear"
            raise BadArgument("kind", wanted=known, found=self.kind, do=did_you_mean(self.kind, _FUNCTIONS))
        for name in ("stride", "padding", "dilation", "output_padding"):
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))  # as captured graphs write them
        own = [self.stride, self.padding, self.dilation, self.groups]
        if self.kind == "linear" and own != [1, 0, 1, 1]:
            raise BadArgument("linear", wanted="no stride, padding, dilation or groups", found=str(own))
        if not self.transposed and self.output_padding != 0:
            raise BadArgument(
                "output_padding",
                wanted="a transposed convolution",
                found=f"{self.output_padding} in {self.kind}",
            )
        if self.groups < 1:
            raise BadArgument("groups", wanted="at least 1", found=str(self.groups))

    @staticmethod
    def of(layer: nn.Module) -> Operation:
        """The operation of a PyTorch layer.

        Raises:
            UnsupportedOperation: Another kind of layer, or padding with anything but zeros.

        Example:
            >>> Operation.of(nn.Conv2d(4, 8, 3, padding=1, groups=2)).padding
            (1, 1)
        """
        if isinstance(layer, nn.Linear):
            return Operation(kind="linear")
        if not isinstance(layer, nn.modules.conv._ConvNd) or layer.padding_mode != "zeros":
            raise UnsupportedOperation(
                type(layer).__name__,
                wanted="a linear layer or a convolution padded with zeros",
                found=str(layer),
                do="Leave it in float, or pad in an operation of its own.",
            )
        rank = len(layer.kernel_size)
        numbers: dict[str, Any] = {"output_padding": layer.output_padding} if layer.transposed else {}
        return Operation(
            kind=f"conv_transpose{rank}d" if layer.transposed else f"conv{rank}d",
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            **numbers,
        )

    @property
    def transposed(self) -> bool:
        """Whether it is a transposed convolution."""
        return self.kind.startswith("conv_transpose")

    @property
    def out_axis(self) -> int:
        """Axis of the weight that outputs lie along: 1 of ``(in, out / groups, ...)``, else 0."""
        return 1 if self.transposed else 0

    def outputs(self, weight: Tensor) -> int:
        """Number of output channels."""
        return weight.shape[1] * self.groups if self.transposed else weight.shape[0]

    def scaled(self, weight: Tensor, factor: Tensor) -> Tensor:
        """Weight of a layer whose outputs are ``factor`` times as large.

        Args:
            weight: ``(out, in / groups, ...)``, or ``(in, out / groups, ...)`` of a transposed convolution.
            factor: ``(out,)``, or ``()`` for all alike.

        Example:
            >>> import torch
            >>> grouped = Operation(kind="conv_transpose1d", groups=2)
            >>> grouped.scaled(torch.ones(2, 1, 1), torch.tensor([2.0, 3.0])).flatten().tolist()
            [2.0, 3.0]
        """
        if factor.dim() == 0:
            return weight * factor
        rest = [1] * (weight.dim() - 2)
        if not self.transposed:
            return weight * factor.view(-1, 1, *rest)
        split = weight.reshape(self.groups, -1, *weight.shape[1:])  # (groups, in / groups, out / groups, ...)
        return (split * factor.view(self.groups, 1, -1, *rest)).reshape(weight.shape)

    def rows(self, weight: Tensor) -> Tensor:
        """What each output is computed with: ``(out, rest)``.

        Example:
            >>> import torch
            >>> grouped = Operation(kind="conv_transpose1d", groups=2)
            >>> grouped.rows(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).unsqueeze(2)).flatten().tolist()
            [1.0, 2.0, 3.0, 4.0]
        """
        if not self.transposed:
            return weight.flatten(1)
        split = weight.reshape(self.groups, -1, *weight.shape[1:])
        return split.transpose(1, 2).reshape(self.outputs(weight), -1)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Run it.

        Args:
            x: ``(batch, in, ...)``; of ``linear`` ``(..., in)``.
            weight: As in :meth:`scaled`.
            bias: ``(out,)`` or ``None``.
        """
        run = _FUNCTIONS[self.kind]
        if self.kind == "linear":
            return run(x, weight, bias)
        numbers: dict[str, Any] = {"output_padding": self.output_padding} if self.transposed else {}
        return run(
            x,
            weight,
            bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            **numbers,
        )
