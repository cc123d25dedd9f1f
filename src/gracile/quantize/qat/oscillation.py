"""Oscillation: weights that jump to and fro between two integers, pulled to the middle of a bin or frozen.

Source: Nagel, Fournarakis, Bondarenko and Blankevoort, "Overcoming oscillations in quantization-aware
training", ICML 2022, arXiv 2203.11086, sections 4.1 (frequency), 4.2 (damping) and 4.3 (freezing); defaults
are those of the authors' code for MobileNetV2 with 3 bits.

Both classes have the methods of a training hook (``on_step_begin``, ``on_step_end``, ``on_epoch_end``), for
``gracile.tune.fit`` or a loop of your own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gracile.errors import BadArgument, UnsupportedOperation

from .weights import LSQ, MinMaxWeights, WeightQuantizer

Site = tuple[str, nn.Parameter, WeightQuantizer]
"""Name of a layer, the weight that is trained, and what rounds it."""


def quantized_weights(model: nn.Module) -> Iterator[Site]:
    """Layers with a ``weight`` and a ``quantizer`` that rounds to the nearest multiple of its step.

    Those that are off, and techniques with bins of another kind (tanh, thresholds, signs), are left out. A
    layer that rounds its weight folded with batch norm needs a search of your own.
    """
    for name, module in model.named_modules():
        weight, quantizer = getattr(module, "weight", None), getattr(module, "quantizer", None)
        if not isinstance(quantizer, LSQ | MinMaxWeights) or not isinstance(weight, nn.Parameter):
            continue
        if quantizer.enabled and getattr(module, "slope_goes", "") != "inside":
            yield name, weight, quantizer


def cosine(step: int, steps: int, start: float, end: float) -> float:
    """From ``start`` at step 0 to ``end`` at ``steps`` and beyond, along half a cosine wave.

    Example:
        >>> [round(cosine(step, 10, 0.0, 1.0), 2) for step in (0, 5, 10, 20)]
        [0.0, 0.5, 1.0, 1.0]
    """
    return end + (start - end) * (1 + math.cos(math.pi * min(step / steps, 1))) / 2


def dampening_loss(
    model: nn.Module, find: Callable[[nn.Module], Iterator[Site]] = quantized_weights
) -> Tensor:
    """Sum over all weights of ``(s W_int - clip(W, -s qmax, s qmax))^2``; gradients reach the weights alone.

    Raises:
        UnsupportedOperation: No layer has weights of the kind.
    """
    terms = [
        ((_middle(weight, quantizer) - weight.float()) * _inside(weight, quantizer)).square().sum()
        for _, weight, quantizer in _found(model, find)
    ]
    return torch.stack(terms).sum()


@dataclass(frozen=True, kw_only=True)
class Damping:
    """Add the gradient of ``strength`` times the dampening loss to that of the task, growing along a cosine.

    Args:
        steps: Steps until the full strength.
        strength: Factor of the loss at the end, at least 0.
        find: Which weights; layers with a ``weight`` and a ``quantizer`` unless said otherwise.

    Raises:
        BadArgument: A number lies outside its range.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> layer.quantizer = LSQ.of(layer.weight, bits=3)
        >>> damping = Damping(steps=100)
        >>> damping.on_step_begin(layer, torch.optim.SGD(layer.parameters()), step=50, epoch=1)
        >>> layer.weight.grad.shape
        torch.Size([2, 2])
    """

    steps: int
    strength: float = 0.1
    find: Callable[[nn.Module], Iterator[Site]] = quantized_weights

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        if not (self.strength >= 0 and math.isfinite(self.strength)):
            raise BadArgument("strength", wanted="at least 0", found=f"{self.strength=}")

    @torch.no_grad()
    def on_step_begin(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        """Put the gradient where the backward pass will add its own."""
        factor = 2 * cosine(step, self.steps, 0.0, self.strength)
        for _, weight, quantizer in _found(model, self.find):
            pull = (weight.float() - _middle(weight, quantizer)) * _inside(weight, quantizer)
            pull = (factor * pull).to(weight.dtype)
            weight.grad = pull if weight.grad is None else weight.grad + pull

    def on_step_end(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        """Nothing."""

    def on_epoch_end(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        """Nothing."""


@dataclass(kw_only=True)
class _Track:
    """What is known of each weight of a layer, all shaped as the weight, in a grid of so many bits."""

    bits: int
    integers: Tensor
    direction: Tensor
    frequency: Tensor
    average: Tensor
    frozen: Tensor
    value: Tensor

    @classmethod
    def of(cls, integers: Tensor, bits: int) -> _Track:
        zero = torch.zeros_like(integers, dtype=torch.float32)
        return cls(
            bits=bits,
            integers=integers,
            direction=torch.zeros_like(integers),
            frequency=zero,
            average=integers.float(),
            frozen=torch.zeros_like(integers, dtype=torch.bool),
            value=zero.clone(),
        )

    def update(self, integers: Tensor, momentum: float, threshold: float) -> None:
        """An oscillation is a change against the direction of the last one."""
        change = torch.sign(integers - self.integers)
        turned = (change != 0) & (change == -self.direction)
        self.frequency = momentum * turned + (1 - momentum) * self.frequency
        self.average = momentum * integers + (1 - momentum) * self.average
        self.direction = torch.where(change != 0, change, self.direction)
        self.integers = integers
        new = (self.frequency > threshold) & ~self.frozen
        self.value = torch.where(new, torch.round(self.average), self.value)
        self.frozen = self.frozen | new


@dataclass(kw_only=True)
class Freezing:
    """Freeze weights that oscillate often at the integer where they were most of the time.

    The frequency of each weight is a moving average of its oscillations in each step. Where it passes the
    threshold, the integer is fixed for good: the rounded moving average of the integers; the step may go on
    learning. It begins anew when training resumes after an interruption, and for a layer whose bits change.

    Args:
        steps: Steps until the last threshold.
        first: Threshold at the start, oscillations a step.
        last: Threshold at the end; it falls along a cosine.
        momentum: Share of the newest step in the moving averages.
        find: Which weights; layers with a ``weight`` and a ``quantizer`` unless said otherwise.

    Raises:
        BadArgument: A number lies outside its range.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> layer.quantizer = LSQ.of(layer.weight, bits=3)
        >>> freezing, sgd = Freezing(steps=100), torch.optim.SGD(layer.parameters())
        >>> freezing.on_step_begin(layer, sgd, step=0, epoch=1)
        >>> freezing.on_step_end(layer, sgd, step=0, epoch=1)
        >>> freezing.share
        0.0
    """

    steps: int
    first: float = 0.1
    last: float = 0.011
    momentum: float = 0.01
    find: Callable[[nn.Module], Iterator[Site]] = quantized_weights
    _tracks: dict[str, _Track] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        for name in ("first", "last", "momentum"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise BadArgument(name, wanted="above 0, at most 1", found=f"{name}={value}")

    @property
    def share(self) -> float:
        """Share of the weights that are frozen."""
        counts = [(int(track.frozen.sum()), track.frozen.numel()) for track in self._tracks.values()]
        return sum(n for n, _ in counts) / max(sum(of for _, of in counts), 1)

    def on_step_begin(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        """Before the first step, note where all weights are."""
        for site in _found(model, self.find):
            self._track(*site)

    @torch.no_grad()
    def on_step_end(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        """Follow the weights, and put those that are frozen back."""
        threshold = cosine(step, self.steps, self.first, self.last)
        for name, weight, quantizer in _found(model, self.find):
            track = self._track(name, weight, quantizer)
            track.update(quantizer.integers(weight), self.momentum, threshold)
            held = track.value * quantizer.spread(quantizer.scale(weight), weight)
            weight.copy_(torch.where(track.frozen, held.to(weight.dtype), weight))

    def _track(self, name: str, weight: Tensor, quantizer: WeightQuantizer) -> _Track:
        """What is known of a layer; integers of another grid say nothing."""
        found = self._tracks.get(name)
        if found is None or found.bits != quantizer.bits:
            found = self._tracks[name] = _Track.of(quantizer.integers(weight.detach()), quantizer.bits)
        return found

    def on_epoch_end(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, epoch: int
    ) -> None:
        """Nothing."""


def _found(model: nn.Module, find: Callable[[nn.Module], Iterator[Site]]) -> list[Site]:
    sites = list(find(model))
    if not sites:
        raise UnsupportedOperation(
            type(model).__name__,
            wanted="layers whose weights are rounded to multiples of a step",
            found="none",
            do="Quantize weights with lsq or minmax, or say where they are with `find`.",
        )
    return sites


@torch.no_grad()
def _middle(weight: Tensor, quantizer: WeightQuantizer) -> Tensor:
    scale = quantizer.spread(quantizer.scale(weight), weight)
    return quantizer.integers(weight).float() * scale


@torch.no_grad()
def _inside(weight: Tensor, quantizer: WeightQuantizer) -> Tensor:
    reach = quantizer.spread(quantizer.scale(weight), weight) * quantizer.qmax
    return weight.float().abs() <= reach


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise BadArgument("steps", wanted="at least 1", found=f"{steps=}")
