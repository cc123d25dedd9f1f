"""First-order Taylor expansion of the loss: entries whose loss would change little go.

Source: Molchanov, Tyree, Karras, Aila and Kautz, "Pruning convolutional neural networks for resource
efficient inference", ICLR 2017, arXiv 1611.06440, equations 6-7, on weights in place of activations, as in
Lee, Ajanthan and Torr, "SNIP", ICLR 2019, arXiv 1810.02340, equations 4-5. Where we differ: absolute values
are taken for each weight and batch, so that what cancels over batches or within an entry still counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gracile.errors import BadArgument

from .entries import Entries, Floats


@dataclass(frozen=True, kw_only=True)
class EntryGradient:
    """Score an entry by the mean of ``|w| E|g|`` over its weights, ``g`` being the gradient of the loss.

    Example:
        >>> two = Entries(param="w", weight=np.array([[2.0, -1.0]]), ids=np.array([[0, 1]]), count=2,
        ...               gradient=np.array([[0.5, 3.0]]))
        >>> EntryGradient()(two).tolist()
        [1.0, 3.0]
    """

    needs_gradients: ClassVar[bool] = True

    def __call__(self, entries: Entries) -> Floats:
        """Score every entry.

        Raises:
            BadArgument: There is no gradient for this parameter.
        """
        if entries.gradient is None:
            raise BadArgument(
                "gradients",
                wanted=f"the gradient of {entries.param}",
                found="none",
                do="Pass gradients=prune.mean_gradients(model, batches).",
            )
        return entries.mean(np.abs(entries.weight) * entries.gradient)
