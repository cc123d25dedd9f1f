"""An exponential moving average of the weights, as a hook.

Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control and
Optimization 30 (1992), in its exponential form ``average = decay * average + (1 - decay) * weight``; the
sums are done by ``torch.optim.swa_utils``.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .hooks import Hook


class Ema(Hook):
    """Averages the weights and buffers of ``model`` after each step; ``ema.module`` is the averaged model.

    Args:
        model: The model being trained; copied, not changed.
        decay: Share of the old average that stays at each step, at least 0 and below 1.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = model.weight.data.fill_(0.0)
        >>> ema = Ema(model, decay=0.75)
        >>> _ = model.weight.data.fill_(1.0)
        >>> ema.update(model)
        >>> ema.module.weight.item()
        0.25
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
        self.averaged.n_averaged.fill_(1)  # the copy made here is the first term of the average

    @property
    def module(self) -> nn.Module:
        """The averaged model."""
        module: nn.Module = self.averaged.module
        return module

    def update(self, model: nn.Module) -> None:
        """Take the present weights of ``model`` into the average; integers are taken as they are."""
        self.averaged.update_parameters(model)
        for ours, theirs in zip(self.module.buffers(), model.buffers(), strict=True):
            if not (ours.is_floating_point() or ours.is_complex()):  # torch cuts 0.9 * 7 + 0.1 * 7 down to 6
                ours.copy_(theirs)

    def on_step_end(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        """Average after each step."""
        self.update(model)
