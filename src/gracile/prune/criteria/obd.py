"""Optimal Brain Damage: half the curvature of the loss along each channel's gate.

Source: LeCun, Denker and Solla, "Optimal brain damage", NeurIPS 1989 (1990), equations 3 to 5: at a minimum
of the loss, deleting parameter ``k`` costs ``h_kk u_k^2 / 2``, ``h_kk`` from the Levenberg-Marquardt
approximation. Where we differ: the parameter is the gate of a channel (``u = 1``), so that terms between
weights of one channel are counted; the diagonal of the Gauss-Newton matrix is estimated from random
projections of the outputs (one backward pass each) in place of back-propagated second derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gracile.errors import BadArgument

from .aggregation import relative
from .criterion import Scene, Scores
from .examples import Loss, cross_entropy
from .gates import gate_gradients


@dataclass(frozen=True, kw_only=True)
class OBD:
    """Score a unit by ``1/2 mean_n d^2 L_n / dg^2`` (Gauss-Newton), ``g`` its gate.

    Scores are relative to their group's mean. In a network of convolutions, fixed batch norms, ReLU and max
    pooling, outputs are piecewise linear in one gate, and the Gauss-Newton curvature is the exact one. With
    cross entropy the labels do not matter; they may through another loss.

    Args:
        probes: Random projections of the outputs, at least 1; the error of a score falls with the root of
            probes times images.

    Example:
        >>> import torch
        >>> from gracile.graph import capture, trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
        >>> found = trace(capture(net, (torch.zeros(1, 1),)))
        >>> data = ((torch.randn(8, 1),),)
        >>> OBD()(Scene(model=net, provenance=found, groups=found.groups, calibration=data))["0"].shape
        (2,)
    """

    marginal: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    probes: int = 2

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise BadArgument("probes", wanted="at least 1", found=f"probes={self.probes}")

    def __call__(self, scene: Scene) -> Scores:
        """Score every unit.

        Raises:
            BadArgument: ``scene`` holds no data.
        """
        draw = torch.Generator().manual_seed(scene.seed)

        def project(outputs: Tensor, targets: Tensor) -> Tensor:
            return (outputs * projection(scene.loss, outputs.detach(), targets, draw)).sum()

        total: Scores = {g.name: np.zeros(g.units) for g in scene.groups}
        for _ in range(self.probes):
            for name, slopes in gate_gradients(scene, project).items():
                total[name] += 0.5 * np.square(slopes).mean(0) / self.probes
        return {name: relative(sums) for name, sums in total.items()}


def projection(loss: Loss, outputs: Tensor, targets: Tensor, draw: torch.Generator) -> Tensor:
    """Random vectors whose second moment is the Hessian of each example's loss in the outputs.

    For cross entropy the Hessian is ``diag(p) - p p'``, with root ``diag(q) (I - q q')`` for ``q = sqrt(p)``;
    other losses are differentiated twice and negative curvature is left out.

    Args:
        loss: Outputs and targets to one number an example.
        outputs: ``(batch, classes)``, or ``(batch, classes, positions...)``.
        targets: Of the batch.
        draw: Source of the random signs.

    Returns:
        Of the shape of ``outputs``.
    """
    signs = torch.randint(0, 2, outputs.shape, generator=draw).to(outputs) * 2 - 1
    if loss is cross_entropy:
        places = outputs[0, 0].numel()  # the loss is their mean
        q = outputs.softmax(1).sqrt()
        vectors: Tensor = q * (signs - q * (q * signs).sum(1, keepdim=True)) / places**0.5
        return vectors

    def one(flat: Tensor, target: Tensor) -> Tensor:
        number: Tensor = loss(flat.reshape(1, *outputs.shape[1:]), target[None])[0]
        return number

    curvature = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(one)))(outputs.flatten(1), targets)
    values, axes = torch.linalg.eigh(curvature)
    root = axes * values.clamp_min(0).sqrt()[:, None]
    found: Tensor = (root @ signs.flatten(1)[:, :, None]).reshape(outputs.shape)
    return found
