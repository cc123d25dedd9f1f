"""Training of shared values: the gradients of all weights that take a value are summed.

Source: Han, Mao and Dally, "Deep compression", ICLR 2016, arXiv 1510.00149, section 3.3. Every weight gets
the summed gradient of its value, so momentum and decay act alike on all that share it and the optimizer needs
no change; after its step the weights of a value are set equal again, against rounding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from gracile.errors import BadArgument
from gracile.records import CodebookPlan, ParamCodebook, from_plain, to_plain

from .apply import codes_of, entry_of
from .fit import Fitted

Tied = tuple[ParamCodebook, nn.Parameter, Tensor]


class CentroidTuning:
    """A training hook that trains the values of a codebook, in our loop and in yours.

    Our loop calls ``on_begin`` by itself; in yours the first ``on_step_begin`` does. Which weight takes which
    value does not change, and zeros stay zero.

    Args:
        plan: From :func:`~gracile.quantize.codebook`.

    Example:
        >>> from gracile.quantize import codebook
        >>> net, plan = codebook(nn.Sequential(nn.Linear(8, 8)), (torch.zeros(1, 8),), bits=2)
        >>> tuning, optimizer = CentroidTuning(plan), torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        >>> for step in range(3):
        ...     tuning.on_step_begin(net, optimizer, step=step, epoch=1)
        ...     net(torch.randn(4, 8)).square().sum().backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        ...     tuning.on_step_end(net, optimizer, step=step, epoch=1)
        >>> len(net[0].weight.unique()), tuning.tuned.layers[0].centroids == plan.layers[0].centroids
        (4, False)
    """

    def __init__(self, plan: CodebookPlan) -> None:
        self.plan = plan
        self._model: nn.Module | None = None
        self._optimizer: Optimizer | None = None
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._tied: list[Tied] = []
        self._averaged: list[Tied] = []

    @property
    def settled(self) -> bool:
        """Always: the form of the model does not change."""
        return True

    @property
    def tuned(self) -> CodebookPlan:
        """The plan with the values that the weights have now."""
        layers = {entry.param: self._now(entry, parameter, codes) for entry, parameter, codes in self._tied}
        return replace(self.plan, layers=tuple(layers.get(entry.param, entry) for entry in self.plan.layers))

    def on_begin(self, model: nn.Module, optimizer: Optimizer, *, average: nn.Module | None = None) -> None:
        """Take hold of the model, its optimizer and its averaged copy."""
        self.release()
        plain = getattr(optimizer, "optimizer", optimizer)  # Accelerate's wrapper has no hooks of its own
        self._model, self._optimizer = model, optimizer
        self._tied = self._pairs(model)
        averaged = average.module if isinstance(average, AveragedModel) else average
        self._averaged = [] if averaged is None else self._pairs(averaged)
        self._handles = [
            plain.register_step_pre_hook(lambda *_: self._share_gradients()),
            plain.register_step_post_hook(lambda *_: _tie(self._tied)),
        ]

    def release(self) -> None:
        """Let go: weights may move apart again."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._tied, self._averaged = [], [], []
        self._model, self._optimizer = None, None

    def on_step_begin(self, model: nn.Module, optimizer: Optimizer, *, step: int, epoch: int) -> None:
        """Take hold, the first time and when another model or optimizer is trained."""
        if self._model is not model or self._optimizer is not optimizer:
            self.on_begin(model, optimizer)

    def on_step_end(self, model: nn.Module, optimizer: Optimizer, *, step: int, epoch: int) -> None:
        """Make the weights of a value equal in the average too."""
        _tie(self._averaged)

    def on_epoch_end(self, model: nn.Module, optimizer: Optimizer, *, step: int, epoch: int) -> None:
        """Nothing: every step has left the weights as they must be."""

    def memory(self) -> dict[str, Any]:
        """The plan."""
        return {"plan": to_plain(self.plan)}

    def resume(self, memory: dict[str, Any]) -> None:
        """Take up the plan again."""
        self.plan = from_plain(CodebookPlan, memory["plan"])

    def _pairs(self, model: nn.Module) -> list[Tied]:
        named = dict(model.named_parameters())
        pairs = []
        for entry in self.plan.layers:
            parameter = named.get(entry.param)
            if parameter is None or tuple(parameter.shape) != entry.shape:
                found = "none" if parameter is None else f"shape {tuple(parameter.shape)}"
                raise BadArgument(entry.param, wanted=f"shape {entry.shape}, as in the plan", found=found)
            pairs.append((entry, parameter, codes_of(entry).to(parameter.device)))
        return pairs

    def _share_gradients(self) -> None:
        """Give every weight the sum of the gradients of all that take its value; zeros get none."""
        for entry, parameter, codes in self._tied:
            if parameter.grad is not None:
                sums = _per_value(parameter.grad, codes, len(entry.centroids))
                sums[[i for i, value in enumerate(entry.centroids) if value == 0.0]] = 0
                parameter.grad.copy_(sums[codes])

    def _now(self, entry: ParamCodebook, parameter: nn.Parameter, codes: Tensor) -> ParamCodebook:
        """The entry with today's values in rising order; those that have become equal are one."""
        values = parameter.detach().float().cpu()
        centroids, order = torch.unique(values, return_inverse=True)
        fitted = Fitted(centroids=centroids.double(), codes=order.reshape(values.shape), error=entry.error)
        return entry_of(entry.param, values, entry.bits, fitted)


def _per_value(numbers: Tensor, codes: Tensor, count: int) -> Tensor:
    """Sums over all that take a value, in float32 at least."""
    wide = numbers.to(torch.promote_types(numbers.dtype, torch.float32))
    return wide.new_zeros(count).index_add(0, codes.reshape(-1), wide.reshape(-1))


def _tie(tied: list[Tied]) -> None:
    """Set the weights of each value to their mean; zeros to zero."""
    with torch.no_grad():
        for entry, parameter, codes in tied:
            count = len(entry.centroids)
            members = torch.bincount(codes.reshape(-1), minlength=count).clamp(min=1)
            means = _per_value(parameter, codes, count) / members
            means[[i for i, value in enumerate(entry.centroids) if value == 0.0]] = 0
            parameter.copy_(means[codes])
