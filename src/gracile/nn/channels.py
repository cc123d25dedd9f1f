"""Parts that choose channels: read some of a trunk's, write into some of them, or silence some.

They let the branches of a residual network keep different channels: the sum itself keeps its width, a branch
computes a few of its channels (:class:`ScatterChannels`), a reader looks at a few (:class:`GatherChannels`).
In an ONNX file a gather is ``Gather``; a scatter is ``Pad`` (one channel of zeros) and ``Gather``. Both only
move values, so a runtime can run them on integers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gracile.errors import BadArgument

from .attach import Part


class GatherChannels(Part):
    """Pass on the channels ``index``.

    Args:
        index: Channels to pass on ``(kept,)``.
        width: Channels of the input.

    Example:
        >>> GatherChannels(torch.tensor([2, 0]), 3)(torch.tensor([[5.0, 6.0, 7.0]])).tolist()
        [[7.0, 5.0]]
    """

    index: Tensor

    def __init__(self, index: Tensor, width: int) -> None:
        super().__init__()
        _check(index, width)
        self.width = width
        self.register_buffer("index", index.long().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, width, ...)`` to ``(batch, kept, ...)``."""
        return x.index_select(1, self.index)

    def extra_repr(self) -> str:
        return f"{self.index.numel()} of {self.width}"


class ScatterChannels(Part):
    """Put channels at the places ``index`` of a wider tensor; the others get a constant, zero by default.

    Args:
        index: Place of each input channel ``(kept,)``, no place twice.
        width: Channels of the output.
        constant: What is added to each output channel ``(width,)``.

    Example:
        >>> ScatterChannels(torch.tensor([2, 0]), 3)(torch.tensor([[5.0, 6.0]])).tolist()
        [[6.0, 0.0, 5.0]]
    """

    table: Tensor
    constant: Tensor | None

    def __init__(self, index: Tensor, width: int, constant: Tensor | None = None) -> None:
        super().__init__()
        _check(index, width)
        self.kept = index.numel()
        table = torch.full((width,), index.numel(), dtype=torch.long, device=index.device)
        table[index.long()] = torch.arange(index.numel(), device=index.device)
        self.register_buffer("table", table)
        self.register_buffer("constant", constant)

    @property
    def index(self) -> Tensor:
        """Place of each input channel ``(kept,)``."""
        places = torch.nonzero(self.table < self.kept)[:, 0]
        return places[torch.argsort(self.table[places])]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, kept, ...)`` to ``(batch, width, ...)``."""
        wide = F.pad(x, [0, 0] * (x.dim() - 2) + [0, 1]).index_select(1, self.table)
        return wide if self.constant is None else wide + over_channels(self.constant, x)

    def extra_repr(self) -> str:
        return f"{self.kept} into {self.table.numel()}"


class MaskChannels(Part):
    """Multiply each channel by a fixed number: zero silences it.

    Args:
        mask: One number a channel ``(channels,)``.

    Example:
        >>> MaskChannels(torch.tensor([1.0, 0.0]))(torch.tensor([[5.0, 6.0]])).tolist()
        [[5.0, 0.0]]
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape ``(batch, channels, ...)``."""
        return x * over_channels(self.mask, x)

    def extra_repr(self) -> str:
        return f"{int(self.mask.count_nonzero())} of {self.mask.numel()}"


def over_channels(vector: Tensor, x: Tensor) -> Tensor:
    """A vector ``(channels,)`` in a shape that meets axis 1 of ``x``."""
    return vector.view(1, -1, *[1] * (x.dim() - 2))


def _check(index: Tensor, width: int) -> None:
    good = index.dim() == 1 and 0 < index.numel() == len(torch.unique(index))
    if not good or int(index.min()) < 0 or int(index.max()) >= width:
        raise BadArgument(
            "index", wanted=f"different channels of {width}, at least one", found=str(index.tolist())[:80]
        )
