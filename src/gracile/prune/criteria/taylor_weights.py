"""First-order Taylor expansion in the weights: ``|sum w dL/dw|`` over the weights that write a channel.

Source: Molchanov, Mallya, Tyree, Frosio and Kautz, "Importance estimation for neural network pruning", CVPR
2019, arXiv 1906.10771, equation 8 over the weights of a filter. Where we differ: absolute values of batches
are averaged, batch norms stand in evaluation mode, and channels that several layers write are scored by all
of them together, each layer's scores divided by their mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gracile.surgery.reference import tensors_of

from .aggregation import Aggregated, aggregate, relative
from .criterion import Scene, Scores, rows_written
from .gates import examples_of
from .slopes import weight_gradients


@dataclass(frozen=True, kw_only=True)
class TaylorWeights(Aggregated):
    """Score a unit by the mean over batches of ``|sum w dL/dw|``, relative to its layer's mean.

    Evaluation mode matters: a batch norm in training mode makes the loss blind to the scale of a filter, and
    the sum is then zero for every filter (Euler's theorem). See the page of :class:`Taylor`, which is the
    better choice.

    Args:
        aggregation: How layers that write the same channels (around a residual sum) are put together.

    Example:
        >>> import torch
        >>> from gracile.graph import capture, trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
        >>> found = trace(capture(net, (torch.zeros(1, 1),)))
        >>> data = (((torch.randn(8, 1),), torch.zeros(8, dtype=torch.long)),)
        >>> scene = Scene(model=net, provenance=found, groups=found.groups, labelled=data)
        >>> TaylorWeights()(scene)["0"].shape
        (2,)
    """

    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit.

        Raises:
            BadArgument: ``scene`` holds no data.
        """
        held = tensors_of(scene.model)
        totals = {g.name: np.zeros((len(g.writers), g.units)) for g in scene.groups}
        for example in examples_of(scene):
            slopes = weight_gradients(scene, example)
            for group in scene.groups:
                for i, slot in enumerate(group.scored):
                    product = rows_written(slot, held) * rows_written(slot, slopes)
                    totals[group.name][i] += product.sum(1).abs().numpy()
        return {
            name: aggregate(np.stack([relative(row) for row in rows]), self.aggregation)
            for name, rows in totals.items()
        }
