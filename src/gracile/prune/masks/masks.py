"""Masks that hold during training: what is zero stays exactly zero.

Where gradients, momentum or weight decay move a masked weight, it is set back before anything sees it: right
after the optimizer's step, by a hook of the optimizer. Nothing is put into the model, so its state dict stays
the user's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from gracile.records import MaskPlan, from_plain, to_plain

from .masking import write_zeros, zeros_of


class Masks:
    """A training hook that keeps the zeros of a plan, in our loop and in yours.

    Our loop calls ``on_begin`` by itself. In yours, call it when you average weights, with the averaged
    model, and call ``on_step_end`` after the average was updated; otherwise the first ``on_step_begin`` does.

    Args:
        plan: From :func:`~gracile.prune.mask_plan`.

    Example:
        >>> from gracile.prune import mask_plan
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> plan = mask_plan(net, (torch.zeros(1, 4),), sparsity=0.5, leave=())
        >>> masks, optimizer = Masks(plan), torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        >>> for step in range(3):
        ...     masks.on_step_begin(net, optimizer, step=step, epoch=1)
        ...     net(torch.ones(2, 4)).sum().backward()
        ...     optimizer.step()
        ...     masks.on_step_end(net, optimizer, step=step, epoch=1)
        >>> int((net[0].weight == 0).sum()), len(net.state_dict())
        (8, 4)
    """

    def __init__(self, plan: MaskPlan | None = None) -> None:
        self.plan = plan
        self._model: nn.Module | None = None
        self._optimizer: Optimizer | None = None
        self._average: nn.Module | None = None
        self._handle: torch.utils.hooks.RemovableHandle | None = None
        self._pairs: list[tuple[Tensor, Tensor]] = []

    @property
    def settled(self) -> bool:
        """Always: the masks don't change."""
        return True

    def on_begin(self, model: nn.Module, optimizer: Optimizer, *, average: nn.Module | None = None) -> None:
        """Take hold of the model, its optimizer and its averaged copy; set the zeros."""
        self.release()
        plain = getattr(optimizer, "optimizer", optimizer)  # Accelerate's wrapper has no hooks of its own
        self._model, self._optimizer = model, optimizer
        self._average = average.module if isinstance(average, AveragedModel) else average
        self._handle = plain.register_step_post_hook(lambda *_: write_zeros(self._pairs))
        self.hold(self.plan)

    def hold(self, plan: MaskPlan | None) -> None:
        """Keep the zeros of ``plan`` from now on.

        Raises:
            BadArgument: The plan was made for a model of other shapes.
        """
        self.plan = plan
        self._pairs = []
        for model in (self._model, self._average):
            if plan is not None and model is not None:
                self._pairs += zeros_of(model, plan)
        write_zeros(self._pairs)

    def release(self) -> None:
        """Let go: weights may move again."""
        if self._handle is not None:
            self._handle.remove()
        self._handle, self._model, self._optimizer, self._average, self._pairs = None, None, None, None, []

    def on_step_begin(self, model: nn.Module, optimizer: Optimizer, *, step: int, epoch: int) -> None:
        """Take hold, the first time and when another model or optimizer is trained."""
        if self._model is not model or self._optimizer is not optimizer:
            self.on_begin(model, optimizer)

    def on_step_end(self, model: nn.Module, optimizer: Optimizer, *, step: int, epoch: int) -> None:
        """Set the zeros again: averages were updated behind the optimizer's step."""
        write_zeros(self._pairs)

    def on_epoch_end(self, model: nn.Module, optimizer: Optimizer, *, step: int, epoch: int) -> None:
        """Set the zeros again, before the model is judged."""
        write_zeros(self._pairs)

    def memory(self) -> dict[str, Any]:
        """The plan."""
        return {"plan": None if self.plan is None else to_plain(self.plan)}

    def resume(self, memory: dict[str, Any]) -> None:
        """Take up the plan again."""
        self.hold(None if memory["plan"] is None else from_plain(MaskPlan, memory["plan"]))
