"""Rounding of weights that keeps a layer's output, not its weights, near: least squares on its inputs.

Source: Frantar et al., "GPTQ: accurate post-training quantization for generative pre-trained transformers",
ICLR 2023, arXiv 2210.17323, equations 2-3 and the Cholesky form of section 3.3, after Frantar and Alistarh,
"Optimal brain compression", NeurIPS 2022, arXiv 2208.11580. Weights are rounded one input after the other;
the error of each is made up for by the weights not yet rounded, as far as inputs are correlated.

Below 8 bits the integers are improved further by coordinate descent, and of several steps of the grid each
row takes the one with the least error of the output, the objective that Hubara et al. ("Accurate post
training quantization with small calibration sets", ICML 2021, arXiv 2006.10518) learn steps by.

Where we differ: inputs are centred, and what rounding does to the mean of the output goes into the bias
(Nagel et al., arXiv 1906.04721, equation 16), so the weights need only keep the variations. Grouped and
depthwise convolutions are solved group by group. Rounding to the nearest costs most in depthwise layers,
where nine weights cannot average their errors out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, fx

from gracile.errors import BadArgument
from gracile.nn import quantize
from gracile.observe.gram import output_size, patches
from gracile.records import QuantPlan, WeightQuant

from ..lower import argument, fetch, op_name, per_axis
from ..units import Layer, Units
from .coordinate_descent import descend
from .moves import pack, spread_grid, with_lowest
from .site import Site

_POSITIONS = 4096  # most outputs sampled from a batch
_PER_INPUT = 8  # outputs sampled for each input of a group, at least 256
_IMAGES = (128, 64)  # at 8 bits more brought ResNet-56 and EfficientNet-Lite0 no nearer to float
_ENOUGH, _LEAST = 4, 1024  # samples for each input, and at least so many, that are enough at 8 bits
_TRIED = (0.6, 1.1)  # steps of a grid, times what the range estimator found
_AT_ONCE = 2**23  # entries of covariances that are solved together, 64 MiB
_UNSURE = 1e-13  # share of the mean square of a float32 that is its rounding
_BLOCK = 64  # inputs whose errors reach the weights behind them in one product


@dataclass(frozen=True, kw_only=True)
class LeastSquares:
    """Weights to the integers that keep each layer's output near.

    Args:
        images: Calibration images whose activations are used, at least 1; ``None`` for 128, or 64 where all
            weights have 8 bits.
        damping: Share of the mean input variance that is added to every input's, above 0.
        steps: Steps of the grid tried for each row of weights below 8 bits, from 0.6 to 1.1 times the given
            one, which is tried too; 0 keeps that.
        passes: Of coordinate descent over the weights of a row below 8 bits, 0 or more.
    """

    images: int | None = None
    damping: float = 0.01
    steps: int = 8
    passes: int = 5

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise BadArgument("images", wanted="at least 1", found=f"{self.images=}")
        if not self.damping > 0:
            raise BadArgument("damping", wanted="above 0", found=f"{self.damping=}")
        for name in ("steps", "passes"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 0):
                raise BadArgument(name, wanted="a whole number, at least 0", found=f"{value!r}")

    needs_data = True

    def round(self, plan: QuantPlan, site: Site) -> QuantPlan:
        """The plan with weights rounded to keep outputs; layers with zero points stay at the nearest."""
        fine = all(w.bits == 8 for w in plan.weights)
        images = self.images or _IMAGES[fine]
        seen = watch_inputs(site.graph, site.units, site.batches, images, _ENOUGH if fine else None)
        layers = {layer.name: layer for layer in site.units.layers}
        tasks = [
            self._task(site.graph, layers[w.layer], w, seen[w.layer])
            for w in plan.weights
            if not any(w.zero_point)
        ]
        found = self._together(tasks)
        done = {
            task.plan.layer: with_integers(task.plan, task.rows, task.steps, best, task.seen)
            for task, best in zip(tasks, found, strict=True)
        }
        return replace(plan, weights=tuple(done.get(w.layer, w) for w in plan.weights))

    def _task(self, graph: fx.GraphModule, layer: Layer, plan: WeightQuant, seen: Inputs) -> _Task:
        """What is to be solved for one layer; grids of 8 bits are fine enough as they are."""
        passes = self.passes if plan.bits < 8 else 0
        if plan.bits < 8:
            plan = with_lowest(plan)
            if plan.group is None and self.steps:
                solve = partial(round_to_keep_output, damping=self.damping, passes=passes)
                factors = torch.linspace(*_TRIED, self.steps).tolist()
                plan = with_best_steps(graph, layer, plan, seen, solve, factors)
        rows, steps = _rows_and_steps(graph, layer, plan, seen)
        return _Task(plan=plan, rows=rows, steps=steps, seen=seen, passes=passes)

    def _together(self, tasks: list[_Task]) -> list[Tensor]:
        """The integers of each layer; layers alike are solved as if they were groups of one, in less time."""
        alike: dict[tuple[object, ...], list[int]] = {}
        for place, task in enumerate(tasks):
            key = (task.rows.shape, task.plan.qmin, task.plan.qmax, task.passes)
            alike.setdefault(key, []).append(place)
        found: dict[int, Tensor] = {}
        for places in alike.values():
            most = max(1, _AT_ONCE // tasks[places[0]].seen.covariance.numel())
            for start in range(0, len(places), most):
                some = places[start : start + most]
                first = tasks[some[0]]
                integers = round_to_keep_output(
                    torch.cat([tasks[i].rows for i in some]),
                    torch.cat([tasks[i].steps for i in some]),
                    torch.cat([tasks[i].seen.covariance for i in some]),
                    first.plan.qmin,
                    first.plan.qmax,
                    self.damping,
                    first.passes,
                )
                found |= dict(zip(some, torch.split(integers, len(first.rows)), strict=True))
        return [found[place] for place in range(len(tasks))]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a layer reads: ``mean`` (groups, inputs), ``covariance`` (groups, inputs, inputs)."""

    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One layer: its weights and steps ``(groups, out, inputs)``, what it reads, passes of descent."""

    plan: WeightQuant
    rows: Tensor
    steps: Tensor
    seen: Inputs
    passes: int


def round_to_keep_output(
    weight: Tensor,
    scale: Tensor,
    covariance: Tensor,
    qmin: int,
    qmax: int,
    damping: float = 0.01,
    passes: int = 0,
) -> Tensor:
    """Integers ``q`` that make ``(weight - scale q) covariance (weight - scale q)'`` small, row by row.

    A weight that is exactly zero was pruned and stays zero: it makes up for no other's error, and what it
    would have made up for is left to the weights behind it (as in Frantar and Alistarh, "SparseGPT", ICML
    2023, arXiv 2301.00774, section 3.4).

    Args:
        weight: ``(groups, out, inputs)``.
        scale: Positive, ``(groups, out)``, or one for each weight; zero points are 0.
        covariance: Of the inputs, ``(groups, inputs, inputs)``, symmetric.
        qmin: Smallest integer.
        qmax: Largest integer.
        damping: Share of the mean variance added to the diagonal.
        passes: Of coordinate descent afterwards.

    Returns:
        Whole numbers, shaped as ``weight``.

    Example:
        >>> both_the_same = torch.ones(1, 2, 2)  # so only the sum of the two weights matters
        >>> weight = torch.tensor([[[0.4, 0.4]]])
        >>> round_to_keep_output(weight, torch.ones(1, 1), both_the_same, -7, 7).tolist()
        [[[0.0, 1.0]]]
    """
    steps = scale if scale.dim() == 3 else scale[:, :, None].expand_as(weight)
    columns = steps.mT.contiguous()

    def nearest(column: Tensor, k: int) -> Tensor:
        return (column / columns[:, k]).round_().clamp_(qmin, qmax).mul_(columns[:, k])

    found = torch.round(compensate(weight, covariance, nearest, damping) / steps)
    if not passes:
        return found
    wide = damped(covariance, damping).to(weight.dtype)
    return descend(weight, steps, wide, found, qmin=qmin, qmax=qmax, passes=passes)


def damped(covariance: Tensor, damping: float) -> Tensor:
    """``covariance`` in float64 with the share ``damping`` of its mean variance added to the diagonal."""
    spread = covariance.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)  # (groups,)
    eye = torch.eye(covariance.shape[1], dtype=torch.float64, device=covariance.device)
    return covariance.double() + (damping * spread.double()).reshape(-1, 1, 1) * eye


def compensate(
    weight: Tensor, covariance: Tensor, nearest: Callable[[Tensor, int], Tensor], damping: float = 0.01
) -> Tensor:
    """Round input after input; the error of each is made up for by the weights not yet rounded.

    Args:
        weight: ``(groups, out, inputs)``; exact zeros stay.
        covariance: As for :func:`round_to_keep_output`.
        nearest: Takes a column ``(groups, out)`` and its index; gives the values that it is rounded to.
        damping: Share of the mean variance added to the diagonal.

    Returns:
        The rounded weights.
    """
    inputs = weight.shape[2]
    wide = damped(covariance, damping)
    factor = torch.linalg.cholesky(wide.flip(1, 2)).flip(1, 2)  # upper, times its transpose: wide
    eye = torch.eye(inputs, dtype=wide.dtype, device=wide.device).expand_as(wide)
    upper = torch.linalg.solve_triangular(factor, eye, upper=True)
    part = 1 / upper.diagonal(dim1=1, dim2=2)[:, :, None].to(weight.dtype)  # (groups, inputs, 1)
    upper = upper.to(weight.dtype)
    left = weight.mT.clone(memory_format=torch.contiguous_format)  # (groups, inputs, out), columns together
    pruned = left == 0
    rounded, any_pruned = torch.zeros_like(left), bool(pruned.any())
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        errors = torch.zeros_like(left[:, start:end])
        for k in range(start, end):
            value = nearest(left[:, k], k)
            rounded[:, k] = value.masked_fill(pruned[:, k], 0.0) if any_pruned else value
            errors[:, k - start] = error = (left[:, k] - rounded[:, k]) * part[:, k]
            left[:, k + 1 : end].addcmul_(upper[:, k, k + 1 : end, None], error[:, None], value=-1)
        left[:, end:] -= upper[:, start:end, end:].mT @ errors
    return rounded.mT


def watch_inputs(
    module: fx.GraphModule,
    units: Units,
    batches: list[tuple[Tensor, ...]],
    images: int,
    enough: int | None = None,
) -> dict[str, Inputs]:
    """Means and covariances of what each layer reads, over the first ``images`` calibration images.

    Args:
        module: A lowered graph.
        units: Its units.
        batches: Calibration batches.
        images: How many images of them are run.
        enough: Samples for each input of a layer that are enough (and at least 1,024 for the layer); ``None``
            for all that are drawn.
    """
    watch = _Watch(module, {layer.node: layer for layer in units.layers}, enough)
    seen = 0
    with torch.no_grad():
        for batch in batches:
            if seen >= images:
                break
            watch.run(*(x[: images - seen] for x in batch))
            seen += len(batch[0])
    return {name: sums.moments() for name, sums in watch.sums.items()}


class _Sums:
    """First and second moments of rows, summed about the mean of the first ones.

    About zero, what a large mean leaves of a small variance would be rounding error.
    """

    def __init__(self, rows: Tensor) -> None:
        self.centre = rows.mean(1, keepdim=True)  # (groups, 1, inputs)
        self.count, self.first, self.second = 0, torch.zeros(()), torch.zeros(())

    def update(self, rows: Tensor) -> None:
        """Add ``(groups, samples, inputs)``."""
        off = rows - self.centre
        self.count += rows.shape[1]
        self.first = self.first + off.sum(1).double()
        self.second = self.second + (off.mT @ off).double()

    def moments(self) -> Inputs:
        """Mean and covariance; no variance is smaller than what rounding adds to it."""
        off = self.first / self.count
        mean = self.centre[:, 0].double() + off
        covariance = self.second / self.count - off[:, :, None] * off[:, None, :]
        variance = covariance.diagonal(dim1=1, dim2=2)
        variance.clamp_(min=0)
        variance.add_(_UNSURE * (variance + mean.square()))
        return Inputs(mean=mean.float(), covariance=covariance.float())


class _Watch(fx.Interpreter):
    """Runs a graph and adds up first and second moments of the inputs of layers."""

    def __init__(
        self, module: fx.GraphModule, layers: dict[fx.Node, Layer], enough: int | None = None
    ) -> None:
        super().__init__(module)
        self.layers, self.enough = layers, enough
        self.sums: dict[str, _Sums] = {}
        self.random = torch.Generator().manual_seed(0)

    def run_node(self, n: fx.Node) -> object:
        layer = self.layers.get(n)
        if layer is not None:
            args, _ = self.fetch_args_kwargs_from_env(n)
            seen = self.sums.get(layer.name)
            inputs = args[1][0].numel()
            most = min(_POSITIONS, max(256, _PER_INPUT * inputs))
            if self.enough is not None:
                most = min(most, max(_LEAST, self.enough * inputs) - (0 if seen is None else seen.count))
            if most > 0:
                rows = input_rows(args[0], args[1], n, self.random, most)  # (groups, samples, inputs)
                seen = self.sums[layer.name] = _Sums(rows) if seen is None else seen
                seen.update(rows)
        return super().run_node(n)


def input_rows(x: Tensor, weight: Tensor, node: fx.Node, random: torch.Generator, most: int) -> Tensor:
    """What single outputs of a layer are computed from, at random places: ``(groups, samples, inputs)``.

    About ``most`` of a convolution's, the same places in every image; all of a linear layer's.
    """
    if op_name(node) == "linear":
        return x.reshape(1, -1, x.shape[-1])
    axes = weight.dim() - 2
    how = {name: per_axis(node, name, axes) for name in ("stride", "padding", "dilation")}
    kernel = weight.shape[2:]
    places = math.prod(output_size(x.shape[2:], kernel, **how))
    share = -(-most // len(x))  # of each image
    at = torch.randperm(places, generator=random)[:share].to(x.device) if share < places else None
    rows = patches(x, kernel, **how, at=at)  # (samples, channels * taps)
    return rows.reshape(len(rows), int(argument(node, "groups")), -1).transpose(0, 1)


Solve = Callable[[Tensor, Tensor, Tensor, int, int], Tensor]
"""Weight, scale, covariance of the inputs, smallest and largest integer to integers."""


def keep_output(
    module: fx.GraphModule, layer: Layer, plan: WeightQuant, seen: Inputs, solve: Solve
) -> WeightQuant:
    """The plan of a layer with the integers that ``solve`` finds, and a bias that keeps its mean output."""
    rows, steps = _rows_and_steps(module, layer, plan, seen)
    best = solve(rows, steps, seen.covariance, plan.qmin, plan.qmax)
    return with_integers(plan, rows, steps, best, seen)


def with_integers(plan: WeightQuant, rows: Tensor, steps: Tensor, best: Tensor, seen: Inputs) -> WeightQuant:
    """The plan with the integers ``best``, shaped as ``rows``, and a bias that keeps the mean output."""
    near = quantize(rows, steps, torch.zeros(()), plan.qmin, plan.qmax)
    lost = rows - best * steps
    shift = (lost @ seen.mean[:, :, None]).reshape(-1)  # what rounding takes from the mean output
    return replace(plan, moved=pack(best - near), bias_shift=tuple(shift.tolist()))


def with_best_steps(
    module: fx.GraphModule, layer: Layer, plan: WeightQuant, seen: Inputs, solve: Solve, factors: list[float]
) -> WeightQuant:
    """The plan with each row's step times the one of ``factors`` (or 1) that moves its output least."""
    rows, steps = _rows_and_steps(module, layer, plan, seen)
    tries = torch.tensor([1.0, *factors])
    steps = torch.cat([steps * factor for factor in tries.tolist()], 1)  # all at once, as if rows of a layer
    every = rows.repeat(1, len(tries), 1)
    lost = every - solve(every, steps, seen.covariance, plan.qmin, plan.qmax) * steps
    error = ((lost @ seen.covariance) * lost).sum(2).reshape(len(rows), len(tries), -1).cpu()
    if plan.axis is None:
        error = error.sum((0, 2), keepdim=True)
    best = tries[error.argmin(1)]  # (groups, out)
    scale = torch.tensor(plan.scale) * best.reshape(-1)
    return replace(plan, scale=tuple(scale.tolist()))


def _rows_and_steps(
    module: fx.GraphModule, layer: Layer, plan: WeightQuant, seen: Inputs
) -> tuple[Tensor, Tensor]:
    """Weights and the steps of their grids, ``(groups, out, inputs)``."""
    weight = fetch(module, str(layer.weight.target)).detach().float()
    groups, inputs = seen.mean.shape
    scale = spread_grid(plan, weight)[0].float().expand_as(weight)
    return weight.reshape(groups, -1, inputs), scale.reshape(groups, -1, inputs)
