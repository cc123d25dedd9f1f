"""Carry out a plan: the surgery, and what keeps the accuracy without training."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Literal

from torch import Tensor, nn

from gracile import surgery
from gracile.errors import BadArgument
from gracile.graph import capture, trace
from gracile.observe import Calibration, chunks
from gracile.observe.batchnorm import reestimate_
from gracile.records import PrunePlan

from .layers import KINDS, Kind
from .repair.constants import add_, find_constants, hang_
from .repair.reconstruct import MEMORY_BYTES, Projection, reconstruct_

BATCH = 128
Carry = Literal["nearest", "exact"]
CARRY = ("nearest", "exact")


def apply(
    model: nn.Module,
    plan: PrunePlan,
    *,
    inputs: tuple[Tensor, ...],
    calibration: Calibration | None = None,
    carry_constants: Carry | bool = "nearest",
    reconstruct: bool | Collection[Kind] = True,
    reestimate_bn: bool = True,
    project: Mapping[str, Projection] | None = None,
    memory_bytes: int = MEMORY_BYTES,
    seed: int = 0,
) -> nn.Module:
    """Return a narrower copy of ``model`` that gives nearly what the model gave.

    First the constants that removed channels emit go into the next biases (of channels with weights zero,
    nothing is lost), then the channels go, then every layer behind them is refitted by least squares and
    batch norms that follow no refitted layer get statistics anew.

    Args:
        model: The model; left as it was.
        plan: From :func:`gracile.prune.plan`.
        inputs: Example inputs, as for the plan.
        calibration: Unlabelled inputs, a few hundred. Without them, nothing is refitted or estimated.
        carry_constants: Keep constants of removed channels: ``"nearest"`` (or ``True``) in biases, which is
            exact where no zero padding follows and costs nothing; ``"exact"`` near padded borders too, by a
            map added behind the layer; ``False`` drops them.
        reconstruct: Refit the layers behind removed channels: all kinds, none, or those named (``conv``,
            ``linear``, ``grouped``, ``transposed``).
        reestimate_bn: Estimate batch-norm statistics anew where nothing was refitted.
        project: By layer name, what a refitted weight is replaced by, see
            :func:`~gracile.prune.reconstruct_`; needs calibration and ``reconstruct``.
        memory_bytes: Bound on the activations held while refitting.
        seed: Of random inputs and sampled positions.

    Raises:
        BadArgument: The plan was made for another model, the calibration data is empty, or a choice is not
            known.
        NonFiniteError: Activations hold NaN or infinity.

    Example:
        >>> import torch
        >>> from gracile.prune import PerLayer, plan
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> inputs = (torch.zeros(1, 4),)
        >>> half = plan(net, inputs, budget=PerLayer(ratio=0.5), leave=())
        >>> apply(net, half, inputs=inputs, calibration=torch.randn(64, 4))[0]
        Linear(in_features=4, out_features=4, bias=True)
    """
    if carry_constants not in (*CARRY, True, False):
        raise BadArgument(
            "carry_constants", wanted="'nearest', 'exact' or False", found=repr(carry_constants)
        )
    small = copy.deepcopy(model)
    if carry_constants and any(g.removed for g in plan.groups):
        provenance = trace(capture(model, inputs), cuts=plan.rewires)
        exact = carry_constants == "exact"
        constants = find_constants(small, provenance, plan, borders=exact, seed=seed)
        add_(small, constants)
        surgery.apply_(small, plan)
        hang_(small, plan, constants)
    else:
        surgery.apply_(small, plan)
    if calibration is None or not (plan.slices or project):
        return small
    if reconstruct:
        kinds = KINDS if reconstruct is True else reconstruct
        reconstruct_(small, model, plan, calibration, kinds=kinds, reestimate_bn=reestimate_bn,
                     project=project, memory_bytes=memory_bytes, seed=seed)  # fmt: skip
    elif reestimate_bn:
        reestimate_(small, chunks(calibration, BATCH, small))
    return small
