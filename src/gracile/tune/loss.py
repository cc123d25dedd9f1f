"""What training makes small. A loss sees the images too, so that a teacher can be asked about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Outputs ``(batch, classes)``, labels ``(batch,)`` and the images they belong to, to one number."""


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Cross entropy in nats, averaged over the batch.

    With smoothing ``s`` and ``C`` classes the target is ``(1 - s) onehot + s / C``.

    Source: label smoothing from Szegedy et al., "Rethinking the Inception Architecture for Computer Vision",
    CVPR 2016, arXiv 1512.00567, section 7.

    Example:
        >>> import torch
        >>> CrossEntropy()(torch.zeros(1, 4), torch.tensor([2]), torch.zeros(1)).exp().item()
        4.0
    """

    label_smoothing: float = 0.0

    def __call__(self, outputs: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        """The loss of one batch; computed in float32 whatever the outputs are."""
        return F.cross_entropy(outputs.float(), labels, label_smoothing=self.label_smoothing)

    def identity(self) -> dict[str, object]:
        """Settings that a checkpoint must share."""
        return {"label_smoothing": self.label_smoothing}
