"""What stands where a residual branch was: zeros that cost nothing."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class ZeroBranch(nn.Module):
    """Zeros, whatever comes in: a sum with them is the other summand.

    Args:
        rank: Number of axes, those of the branch's output.
        whole: Zeros of the shape of what comes in, for code that adds to them in place; otherwise of shape
            ``(1, ..., 1)``.

    Example:
        >>> import torch
        >>> ZeroBranch(rank=4)(torch.ones(2, 3, 8, 8)).shape
        torch.Size([1, 1, 1, 1])
    """

    def __init__(self, rank: int, whole: bool = False) -> None:
        super().__init__()
        self.rank, self.whole = rank, whole

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """``x`` only tells device, type and, when ``whole``, the shape; more arguments are passed over."""
        return x.new_zeros(x.shape if self.whole else (1,) * self.rank)

    def extra_repr(self) -> str:
        """As printed."""
        return f"rank={self.rank}, whole={self.whole}"
