"""How far outputs are from those of the whole model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from gracile.graph import evaluating

from .calibration import Batch
from .devices import device_of

Outputs = tuple[Tensor, ...]


def outputs(model: nn.Module, batch: Batch) -> Outputs:
    """Outputs in evaluation mode, float32: those tensors of numbers with a point that the model gives.

    Args:
        model: Gives a tensor, or tensors in tuples, lists and dictionaries.
        batch: Its inputs, on any device.

    Example:
        >>> [x.tolist() for x in outputs(nn.ReLU(), (torch.tensor([-1.0, 2.0]),))]
        [[0.0, 2.0]]
    """
    where = device_of(model)
    with evaluating(model), torch.no_grad():
        found = tree_leaves(model(*[x.to(where, copy=True) for x in batch]))
    return tuple(x.float() for x in found if isinstance(x, Tensor) and x.is_floating_point())


def divergence(wanted: Tensor | Outputs, found: Tensor | Outputs) -> float:
    """Mean over inputs of ``sum_c p_c log(p_c / q_c)`` in nats, ``p`` and ``q`` the softmax of both.

    For outputs that are not ``(batch, classes)`` it is ``|found - wanted|^2 / |wanted|^2``. Where there are
    several outputs their divergences are added.

    Example:
        >>> divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]]))
        0.0
    """
    if not isinstance(wanted, Tensor):
        return sum(divergence(w, f) for w, f in zip(wanted, found, strict=True))
    assert isinstance(found, Tensor)
    if wanted.dim() == 2:
        p, q = F.log_softmax(wanted, 1), F.log_softmax(found, 1)
        return float(F.kl_div(q, p, reduction="batchmean", log_target=True))
    return float((found - wanted).square().sum() / wanted.square().sum().clamp_min(1e-30))
