"""Mean over the spatial axes, in the form that runtimes execute in integers.

ONNX Runtime has an integer kernel for ``GlobalAveragePool`` and none for ``ReduceMean``, which is what a
mean or an adaptive pool to one pixel becomes in the exporter (measured with ONNX Runtime 1.31).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpatialMean(nn.Module):
    """Mean over all axes behind the channels.

    Args:
        keepdim: Keep those axes with size one.

    Example:
        >>> SpatialMean(keepdim=False)(torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(self, keepdim: bool = True) -> None:
        super().__init__()
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, c, ...)`` to ``(n, c, 1, ...)``, or ``(n, c)`` without ``keepdim``."""
        axes = list(range(2, x.dim()))
        if torch.onnx.is_in_onnx_export():
            shape = [*x.shape[:2], *[1] * len(axes)]
            mean: Tensor = torch.onnx.ops.symbolic("::GlobalAveragePool", (x,), dtype=x.dtype, shape=shape)
        else:
            mean = x.mean(axes, keepdim=True)
        return mean if self.keepdim else mean.flatten(1)
