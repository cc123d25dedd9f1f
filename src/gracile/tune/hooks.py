"""Objects that act during training, in our loop or in the user's own."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn


class Hook(Protocol):
    """Something that acts at fixed moments of training. Inherit from it and write the methods you need.

    In a loop of your own, call the methods at these places::

        for epoch in range(epochs):
            for images, labels in loader:
                hook.on_step_begin(model, optimizer, step=step, epoch=epoch)
                loss(model(images), labels).backward()
                optimizer.step()
                optimizer.zero_grad()
                hook.on_step_end(model, optimizer, step=step, epoch=epoch)
                step += 1
            hook.on_epoch_end(model, optimizer, step=step, epoch=epoch)

    ``step`` counts from 0 over the whole run, ``epoch`` from 1. A hook may narrow the model with
    ``gracile.surgery.apply_``; it then brings an average of its own, ``ema_decay`` being None.
    """

    def on_step_begin(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        """Before the forward pass of a step."""
        return None

    def on_step_end(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        """After the optimizer changed the weights and the gradients were cleared."""
        return None

    def on_epoch_end(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        """After the last step of an epoch, before the held-out part is judged."""
        return None


@runtime_checkable
class Resumable(Protocol):
    """A hook with a state of its own that a checkpoint keeps, such as what it did to the model's shapes."""

    def state(self) -> dict[str, Any]:
        """The state as plain JSON data."""
        ...

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: Any) -> None:
        """Take over a state; called on the model as training found it, before its weights are loaded."""
        ...
