"""What reconstruction learns: integers, steps and biases of layers, steps of activations.

Integers of weights start where another rounding left them. ``soft`` relaxes them as Nagel et al. ("Up or
down? Adaptive rounding for post-training quantization", ICML 2020, arXiv 2004.10568, equations 22-24) do:
each is the floor plus a rectified sigmoid, driven to 0 or 1 by an annealed regulariser. Otherwise they round
in the forward pass and let gradients straight through (Bengio et al., 2013, arXiv 1308.3432). Steps are
learned as Esser et al. ("Learned step size quantization", ICLR 2020, arXiv 1902.08153, equation 3) do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gracile.nn import quantize
from gracile.records import EdgeQuant, WeightQuant

from ..grid import MOST_BIAS
from .moves import pack, unpack, with_lowest

ZETA, GAMMA = 1.1, -0.1
"""How far the sigmoid is stretched beyond 0 and 1 before it is rectified."""
_FURTHEST = 1.5  # most that a step grows, or that of a weight shrinks, as the exponent of e
_SHRUNK = -0.6  # that of an activation: biases of ``MOST_BIAS`` steps then still fit 32 bits


def rectified_sigmoid(v: Tensor) -> Tensor:
    """``clip(sigmoid(v) (zeta - gamma) + gamma, 0, 1)`` (equation 23 of AdaRound).

    Example:
        >>> rectified_sigmoid(torch.tensor([-9.0, 0.0, 9.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    return (torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def logits_of(h: Tensor) -> Tensor:
    """``v`` with ``rectified_sigmoid(v) == h``, for ``h`` from 0 to 1."""
    return torch.logit((h - GAMMA) / (ZETA - GAMMA))


def undecided(h: Tensor, beta: float) -> Tensor:
    """``sum(1 - |2 h - 1| ** beta)``: 0 where all are 0 or 1 (equation 24 of AdaRound)."""
    return (1 - (2 * h - 1).abs().pow(beta)).sum()


class _Step(torch.autograd.Function):
    """Round to a grid whose step has a gradient too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: int, qmin: int, qmax: int) -> Tensor:
        y = (x / scale).round_().clamp_(qmin - zero_point, qmax - zero_point).mul_(scale)
        ctx.save_for_backward(x, y, scale)
        ctx.reach = (qmin - zero_point, qmax - zero_point)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, y, scale = ctx.saved_tensors
        low, high = ctx.reach
        inside = torch.ge(x, low * scale, out=torch.empty_like(x))  # 0 and 1: faster than masks
        passed = inside.mul_(torch.le(x, high * scale, out=torch.empty_like(x))).mul_(grads[0])
        to_scale = None
        if ctx.needs_input_grad[1]:
            to_scale = ((grads[0] * y).sum() - (passed * x).sum()) / scale
        return passed, to_scale, None, None, None


class LearnedEdge:
    """A grid of activations; ``factor`` is the learned logarithm of how much its step grew."""

    def __init__(self, plan: EdgeQuant, learn: bool) -> None:
        self.plan = plan
        self.factor = torch.zeros((), requires_grad=learn)

    @property
    def coarse(self) -> bool:
        """Coarse enough that dropping it at random teaches something."""
        return self.plan.bits < 8

    @property
    def scale(self) -> Tensor:
        """The step."""
        return self.plan.scale * torch.exp(self.factor.clamp(_SHRUNK, _FURTHEST))

    def __call__(self, x: Tensor, drop: float = 0.0, random: torch.Generator | None = None) -> Tensor:
        """``x`` on the grid; with ``drop``, that share of the values, at random, as it was."""
        plan = self.plan
        y: Tensor = _Step.apply(x, self.scale.to(x.device), plan.zero_point, plan.qmin, plan.qmax)
        if not (drop and self.coarse):
            return y
        return mixed(x, y, drop, random)

    def finished(self) -> EdgeQuant:
        """The plan with the learned step."""
        return replace(self.plan, scale=float(self.scale.detach()))


def mixed(first: Tensor, second: Tensor, share: float, random: torch.Generator | None) -> Tensor:
    """``first`` in that share of the places, at random, and ``second`` in the others, both to the last bit.

    PyTorch's ``where`` takes ten times as long on a processor as this ``lerp`` with weights 0 and 1.
    """
    return torch.lerp(second, first, by_chance(first, share, random).to(first.dtype))


def by_chance(x: Tensor, share: float, random: torch.Generator | None) -> Tensor:
    """A mask shaped as ``x``, true with probability ``share`` (below 1), to the nearest of 65,536 parts.

    A random integer of 64 bits decides four values, which takes a tenth of the time of a number for each.

    Example:
        >>> mask = by_chance(torch.zeros(99, 333), 0.3, torch.Generator().manual_seed(0))
        >>> round(mask.float().mean().item(), 2)
        0.3
    """
    count = x.numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None, generator=random)
    below = min(round(share * 2**16), 2**16 - 1) - 2**15
    return (words.view(torch.int16)[:count] < below).view(x.shape).to(x.device)


class LearnedLayer:
    """Weights of a layer as integers that can be learned, with steps and a bias.

    Args:
        plan: Grid, integers and bias shift to start from.
        weight: The float weight.
        bias: The float bias, ``None`` where the layer has none.
        soft: Relax integers by rectified sigmoids; else round straight through.
        unit: Size of the layer's outputs, ``(out,)``, in which the bias is learned.
        input_scale: Step of what the layer reads: biases are in units of it and of the weight's step.
    """

    def __init__(
        self,
        plan: WeightQuant,
        weight: Tensor,
        bias: Tensor | None,
        *,
        soft: bool,
        unit: Tensor,
        input_scale: float,
    ) -> None:
        self.plan, self.weight, self.soft = plan, weight.detach().float(), soft
        shape = [-1, *[1] * (weight.dim() - 1)]
        full = torch.tensor(plan.scale, device=weight.device).expand(len(weight))
        zero = torch.tensor(plan.zero_point, device=weight.device).expand(len(weight)).reshape(shape)
        self.start, self.zero = full.reshape(shape), zero
        self.low, self.high = (plan.qmin - zero).float(), (plan.qmax - zero).float()
        integers = self._nearest(full) - zero
        if plan.moved:
            integers = integers + unpack(plan.moved, tuple(weight.shape)).to(weight.device)
        self.pruned = self.weight == 0
        integers = integers.clamp(self.low, self.high).float()
        self.plan = with_lowest(plan)
        self.low = (self.plan.qmin - zero).float()
        exact = self.weight / self.start
        self.floor = torch.where(exact >= integers, integers, integers - 1)
        self.latent = self._start_of(integers, exact).requires_grad_()
        self.factor = torch.zeros_like(self.start, requires_grad=True)
        nothing = torch.zeros(len(weight), device=weight.device)
        self.own_bias = nothing if bias is None else bias.detach().float()
        shift = torch.tensor(plan.bias_shift, device=weight.device) if plan.bias_shift else nothing
        self.bias_start, self.unit = self.own_bias + shift, unit
        smallest = self.bias_start.abs().reshape(shape) / (input_scale * MOST_BIAS)
        self.smallest = torch.minimum(self.start, smallest if plan.axis is not None else smallest.max())
        self.bias_moved = torch.zeros_like(nothing, requires_grad=True)

    def _nearest(self, scale: Tensor) -> Tensor:
        plan = self.plan
        zero = torch.tensor(plan.zero_point, device=scale.device)
        steps = scale if plan.axis is not None else scale[0]
        zero = zero if plan.axis is not None else zero[0]
        return quantize(self.weight, steps, zero, plan.qmin, plan.qmax, plan.axis)

    def _start_of(self, integers: Tensor, exact: Tensor) -> Tensor:
        """Where learning starts: in the middle of the cell, so that only gradients that agree move integers.

        Rectified sigmoids start towards the float weight instead, as far as the cell goes.
        """
        if not self.soft:
            return integers
        near = exact.clamp(integers - 0.45, integers + 0.45)
        return logits_of((near - self.floor).clamp(0.05, 0.95))

    @property
    def scale(self) -> Tensor:
        """Steps, one a row, or one for all."""
        factor = self.factor.clamp(-_FURTHEST, _FURTHEST)
        if self.plan.axis is None:
            factor = factor.mean().expand_as(factor)
        return torch.maximum(self.start * torch.exp(factor), self.smallest)

    def relaxed(self) -> tuple[Tensor, Tensor]:
        """The weight that the forward pass uses while learning, and the rectified sigmoids (or nothing)."""
        if self.soft:
            h = rectified_sigmoid(self.latent)
            steps = torch.minimum(torch.maximum(self.floor + h, self.low), self.high)
        else:
            h = self.latent
            held = torch.minimum(torch.maximum(h, self.low), self.high)
            steps = held + (held.round() - held).detach()
        return steps.masked_fill(self.pruned, 0.0) * self.scale, h

    def hold(self) -> None:
        """Keep what is rounded straight through on the grid."""
        if not self.soft:
            self.latent.data.clamp_(self.low - 0.4, self.high + 0.4)

    def steps(self) -> Tensor:
        """The integers that were learned, zero points taken off."""
        with torch.no_grad():
            up = (self.latent > 0).float() + self.floor if self.soft else self.latent.round()
            return torch.minimum(torch.maximum(up, self.low), self.high).masked_fill(self.pruned, 0.0)

    @property
    def bias(self) -> Tensor:
        """The bias."""
        return self.bias_start + self.unit * self.bias_moved

    def hard(self) -> Tensor:
        """The weight that will be stored."""
        return self.steps() * self.scale.detach()

    def parameters(self) -> dict[str, Tensor]:
        """What is learned, by kind."""
        return {"weights": self.latent, "steps": self.factor, "biases": self.bias_moved}

    def finished(self) -> WeightQuant:
        """The plan with what was learned."""
        scale = self.scale.detach().reshape(-1)
        kept = scale if self.plan.axis is not None else scale[:1]
        moved = self.steps() + self.zero - self._nearest(scale)
        shift = (self.bias.detach() - self.own_bias).tolist()
        return replace(
            self.plan,
            scale=tuple(kept.tolist()),
            moved=pack(moved) if bool(moved.any()) else "",
            bias_shift=tuple(shift),
        )
