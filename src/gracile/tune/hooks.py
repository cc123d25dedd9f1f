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
    ``gracile.surgery.apply_``; unless it is a :class:`StatefulHook`, it then brings an average of its own,
    ``ema_decay`` being None.
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
class StatefulHook(Hook, Protocol):
    """A hook that changes the model for good, and so must survive an interruption.

    :func:`gracile.tune.fit` calls ``on_begin`` before the first step, stores ``memory`` in its checkpoints,
    and hands it to ``resume`` before the checkpoint's weights are loaded, so that shapes fit. Epochs that end
    before the hook is ``settled`` are of another model than the one asked for and never the best.

    A hook may also have a method ``identity`` that gives its settings by name, as ``dict[str, object]``:
    a checkpoint of a run with other settings is then refused. So may a loss.
    """

    @property
    def settled(self) -> bool:
        """Whether the model has the form asked for."""
        ...

    def on_begin(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, average: nn.Module | None = None
    ) -> None:
        """Before the first step; ``average`` is the moving average of the weights, where there is one."""
        ...

    def memory(self) -> dict[str, Any]:
        """What ``resume`` needs, as plain JSON data."""
        ...

    def resume(self, memory: dict[str, Any]) -> None:
        """Give the model of ``on_begin`` the form that it had when ``memory`` was stored."""
        ...
