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

from gracile.errors import BadArgument
from gracile.records import MaskPlan, from_plain, to_plain

from .masking import write_zeros, zeros_of

Held = tuple[nn.Module, str, Tensor, Tensor]
"""A model, the name of a parameter, the parameter itself and where it is zero."""


class Masks:
    """A training hook that keeps the zeros of a plan, in our loop and in yours.

    Our loop calls ``on_begin`` by itself. In yours, call it when you average weights, with the averaged
    model, and call ``on_step_end`` after the average was updated; otherwise the first ``on_step_begin`` does.

    Where channels go in the same training, the masks are of other shapes: hand what
    :func:`~gracile.prune.narrow_masks` gives to :meth:`hold` after each removal.

    Args:
        plan: From :func:`~gracile.prune.mask_plan`.

    Raises:
        BadArgument: The plan was made for a model of other shapes, or masked parameters changed their shape.

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
        self._held: list[Held] | None = None

    @property
    def settled(self) -> bool:
        """Always: the masks don't change."""
        return True

    def holds(self, model: nn.Module, optimizer: Optimizer) -> bool:
        """Whether it has hold of this model and this optimizer."""
        return self._model is model and self._optimizer is plain_optimizer(optimizer)

    def on_begin(self, model: nn.Module, optimizer: Optimizer, *, average: nn.Module | None = None) -> None:
        """Take hold of the model, its optimizer and its averaged copy; set the zeros."""
        self.release()
        self._model, self._optimizer = model, plain_optimizer(optimizer)
        self._average = average.module if isinstance(average, AveragedModel) else average
        self._handle = self._optimizer.register_step_post_hook(lambda *_: self._set())
        self.hold(self.plan)

    def hold(self, plan: MaskPlan | None) -> None:
        """Keep the zeros of ``plan`` from now on.

        Raises:
            BadArgument: The plan was made for a model of other shapes.
        """
        self.plan, self._held = plan, None
        self._find()
        self._set()

    def release(self) -> None:
        """Let go: weights may move again."""
        if self._handle is not None:
            self._handle.remove()
        self._handle, self._model, self._optimizer, self._average, self._held = None, None, None, None, None

    def on_step_begin(self, model: nn.Module, optimizer: Optimizer, *, step: int, epoch: int) -> None:
        """Take hold, the first time and when another model or optimizer is trained."""
        if not self.holds(model, optimizer):
            self.on_begin(model, optimizer)
        self._find()

    def on_step_end(self, model: nn.Module, optimizer: Optimizer, *, step: int, epoch: int) -> None:
        """Set the zeros again: averages were updated behind the optimizer's step."""
        self._find()
        self._set()

    def on_epoch_end(self, model: nn.Module, optimizer: Optimizer, *, step: int, epoch: int) -> None:
        """Set the zeros again, before the model is judged."""
        self._find()
        self._set()

    def identity(self) -> dict[str, object]:
        """Settings that a checkpoint must share."""
        return {"masks": None if self.plan is None else self.plan.masks}

    def memory(self) -> dict[str, Any]:
        """The plan."""
        return {"plan": None if self.plan is None else to_plain(self.plan)}

    def resume(self, memory: dict[str, Any]) -> None:
        """Take up the plan again; weights, and shapes where channels went before, may come behind it."""
        self.plan = None if memory["plan"] is None else from_plain(MaskPlan, memory["plan"])
        self._held = None

    def _find(self) -> None:
        """Find what is masked: the first time, and when the model holds other tensors under these names."""
        held = self._held or []
        replaced = [h for h in held if _tensor(h[0], h[1]) is not h[2]]
        if self._held is not None and not replaced:
            return
        for model, name, old, _ in replaced:
            new = _tensor(model, name)
            if new is not None and new.shape != old.shape:
                raise _narrowed(name, old, new)
        self._held = []
        for found in (self._model, self._average):
            if self.plan is not None and found is not None:
                pairs = zip(self.plan.masks, zeros_of(found, self.plan), strict=True)
                self._held += [(found, mask.param, *pair) for mask, pair in pairs]

    def _set(self) -> None:
        write_zeros((tensor, drop) for _, _, tensor, drop in self._held or ())


def plain_optimizer(optimizer: Optimizer) -> Optimizer:
    """The optimizer inside Accelerate's wrapper, which has no hooks of its own."""
    inner: Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner


def _tensor(model: nn.Module, name: str) -> Tensor | None:
    path, _, leaf = name.rpartition(".")
    try:
        found: Tensor | None = getattr(model.get_submodule(path), leaf, None)
    except AttributeError:
        return None
    return found


def _narrowed(name: str, old: Tensor, new: Tensor) -> BadArgument:
    return BadArgument(
        name,
        wanted=f"shape {tuple(old.shape)}, which its mask has",
        found=f"shape {tuple(new.shape)}: channels went while masks are held",
        do="Remove channels in a training before, or hand what narrow_masks gives to Masks.hold.",
    )
