"""When what is quantized: activations from an epoch on, bits step by step, batch norms still at the end.

Source: the documents' training (weights at once, activations after the first epochs, batch norms frozen for
the last); freezing norms: Krishnamoorthi 2018, arXiv 1806.08342, section 3.2; bits that fall step by step:
Zhuang et al., "Towards effective low-bitwidth convolutional neural networks", CVPR 2018, arXiv 1711.00205,
section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from glob import escape
from typing import Any

import torch
from torch import nn

from gracile.errors import BadArgument

from .model import QatModel


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Moments of a training, in epochs from 1.

    Args:
        epochs: Of the whole training.
        activations_from: First epoch that rounds activations.
        freeze_norms: Last epochs whose batch norms keep their statistics. The learning rate has to be small
            then: what is no longer normalised by its own batch diverges at rates that were fine before.
        weight_bits: Bits from an epoch on, such as ``{1: 4, 3: 2}``, of all layers that start below 8 bits;
            empty to train at the final bits at once. The last entry has to be the final number.

    Raises:
        BadArgument: An epoch lies outside the training.

    Example:
        >>> Plan(epochs=5, activations_from=2, freeze_norms=1).freeze_norms
        1
    """

    epochs: int
    activations_from: int = 1
    freeze_norms: int = 0
    weight_bits: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.activations_from <= self.epochs:
            raise BadArgument(
                "activations_from",
                wanted=f"an epoch from 1 to {self.epochs}",
                found=str(self.activations_from),
            )
        if not 0 <= self.freeze_norms <= self.epochs:
            raise BadArgument(
                "freeze_norms", wanted=f"0 to {self.epochs} epochs", found=str(self.freeze_norms)
            )
        for epoch, bits in self.weight_bits.items():
            if not (1 <= epoch <= self.epochs and 1 <= bits <= 8):
                raise BadArgument(
                    "weight_bits", wanted=f"epochs up to {self.epochs}, 1 to 8 bits", found=f"{epoch}: {bits}"
                )


class Phases:
    """Switches a :class:`QatModel` while it trains; a hook of ``gracile.tune.fit`` or of a loop of your own.

    In a loop of your own call ``on_begin`` once, ``on_step_begin`` before each step and ``on_epoch_end``
    after each epoch. An epoch whose
    network is not yet quantized as asked for is not ``settled``, so ``fit`` does not take it for the best.

    Args:
        plan: The moments.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> from gracile.quantize.qat import prepare
        >>> x = torch.randn(8, 4)
        >>> model, phases = prepare(net, (x,), [x]), Phases(Plan(epochs=3, activations_from=2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> phases.on_begin(model, optimizer)
        >>> any(a.enabled for a in model.activations.values())
        False
        >>> phases.on_epoch_end(model, optimizer, step=1, epoch=1)
        >>> phases.on_step_begin(model, optimizer, step=1, epoch=2)
        >>> all(a.enabled for a in model.activations.values()), phases.settled
        (True, False)
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.epoch = self.entered = 0
        self.falling: list[str] = []

    @property
    def settled(self) -> bool:
        """Whether the last whole epoch trained the network in its final form."""
        last = max([self.plan.activations_from, *self.plan.weight_bits])
        return self.epoch >= last

    def on_begin(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, average: nn.Module | None = None
    ) -> None:
        """Set up the first epoch."""
        self.model, self.average = _trained(model), None if average is None else _trained(average)
        self.falling = [name for name, layer in self.model.layers.items() if layer.quantizer.bits < 8]
        self._enter(1)

    def on_step_begin(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        """Set up an epoch when it begins."""
        if epoch != self.entered:
            self._enter(epoch)

    def on_step_end(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        """Nothing."""

    def on_epoch_end(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        """Note that the epoch is over."""
        self.epoch = epoch

    def identity(self) -> dict[str, object]:
        """Settings that a checkpoint must share."""
        return {"plan": self.plan}

    def memory(self) -> dict[str, Any]:
        """The last whole epoch, and the layers whose bits change."""
        return {"epoch": self.epoch, "falling": self.falling}

    def resume(self, memory: dict[str, Any]) -> None:
        """Give the model the form that it had after that epoch."""
        self.epoch, self.falling = memory["epoch"], memory["falling"]
        for epoch in range(1, self.epoch + 1):
            self._enter(epoch)

    def _enter(self, epoch: int) -> None:
        """What changes at the start of an epoch."""
        plan, self.entered = self.plan, epoch
        for model in filter(None, (self.model, self.average)):
            model.quantize_activations(epoch >= plan.activations_from)
            model.freeze_norms(epoch > plan.epochs - plan.freeze_norms)
            if epoch in plan.weight_bits:
                for name in self.falling:
                    model.set_bits(escape(name), weights=plan.weight_bits[epoch])


def _trained(model: nn.Module) -> QatModel:
    """The model itself, out of an average, a compiled module or DDP."""
    while not isinstance(model, QatModel):
        inner = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            break
        model = inner
    if not isinstance(model, QatModel):
        raise BadArgument(
            "model", wanted="a model made by gracile.quantize.qat.prepare", found=type(model).__name__
        )
    return model
