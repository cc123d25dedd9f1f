"""The optimizers that a configuration can name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from .config import TuneConfig

Groups = list[dict[str, Any]]


def sgd(groups: Groups, config: TuneConfig) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


def adam(groups: Groups, config: TuneConfig) -> torch.optim.Optimizer:
    """Adam; weight decay is added to the gradient."""
    return torch.optim.Adam(groups, lr=config.lr)


def adamw(groups: Groups, config: TuneConfig) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay."""
    return torch.optim.AdamW(groups, lr=config.lr)


OPTIMIZERS: dict[str, Callable[[Groups, TuneConfig], torch.optim.Optimizer]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
}


def make_optimizer(model: nn.Module, config: TuneConfig) -> torch.optim.Optimizer:
    """Build the configuration's optimizer for the parameters of ``model`` that take gradients.

    Example:
        >>> from gracile.tune import TuneConfig
        >>> groups = make_optimizer(nn.Linear(2, 2), TuneConfig(decay_norms=False)).param_groups
        >>> [(len(group["params"]), group["weight_decay"]) for group in groups]
        [(1, 0.0001), (1, 0.0)]
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [p for p in trained if config.decay_norms or p.ndim >= 2]
    spared = [p for p in trained if not config.decay_norms and p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return OPTIMIZERS[config.optimizer]([group for group in groups if group["params"]], config)
