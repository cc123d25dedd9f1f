"""First-order Taylor expansion at the gates: what the loss of each image would change without the channel.

Source: Molchanov, Tyree, Karras, Aila and Kautz, "Pruning convolutional neural networks for resource
efficient inference", ICLR 2017, arXiv 1611.06440, equations 7 and 8; Molchanov, Mallya, Tyree, Frosio and
Kautz, "Importance estimation for neural network pruning", CVPR 2019, arXiv 1906.10771, equation 8 (``power``
2). Where we differ: the gate stands where the channel is read, over all its readers together, and the
absolute value is taken image by image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gracile.errors import BadArgument

from .aggregation import relative
from .criterion import Scene, Scores
from .gates import gate_gradients


@dataclass(frozen=True, kw_only=True)
class Taylor:
    """Score a unit by ``mean_n |sum z dL_n/dz|`` over images ``n``, relative to its group's mean.

    ``z`` are the unit's activations in the inputs of the layers that read it. The absolute value is taken for
    each image, so that images that the unit helps and images that it harms do not cancel.

    Args:
        power: 1 for the absolute value (2017), 2 for the square (2019), which listens to few images more.

    Example:
        >>> import torch
        >>> from gracile.graph import capture, trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
        >>> _ = net[0].bias.data.fill_(1.0), net[0].weight.data.fill_(0.0)
        >>> _ = net[2].weight.data.copy_(torch.tensor([[3.0, 1.0], [0.0, 0.0]]))
        >>> _ = net[2].bias.data.fill_(0.0)
        >>> found = trace(capture(net, (torch.zeros(1, 1),)))
        >>> data = (((torch.zeros(4, 1),), torch.tensor([0, 0, 1, 1])),)
        >>> scene = Scene(model=net, provenance=found, groups=found.groups, labelled=data)
        >>> Taylor()(scene)["0"].round(3).tolist()
        [1.5, 0.5]
    """

    marginal: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    power: int = 1

    def __post_init__(self) -> None:
        if self.power not in (1, 2):
            raise BadArgument("power", wanted="1 or 2", found=f"power={self.power}")

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit.

        Raises:
            BadArgument: ``scene`` holds no data.
        """
        slopes = gate_gradients(scene, lambda outputs, targets: scene.loss(outputs, targets).sum())
        return {name: relative((np.abs(g) ** self.power).mean(0)) for name, g in slopes.items()}
