"""How much of a budget pruning saves and how much factoring: tried, and judged on held-out inputs.

The idea of one budget over both is that of Li, Gu, Mayer, Van Gool and Timofte, "Group sparsity: the hinge
between filter pruning and decomposition for network compression", CVPR 2020, arXiv 2003.08935, which trains
for it; here nothing is trained. Pruning takes the channels with the least error a multiply-add until a part
``s`` of the saving is reached, then factoring the ranks with the least error a multiply-add until the rest
is. The errors of both are of different kinds, and ``s`` is the rate at which one is exchanged for the other;
so it is found where it counts, by how far the network's outputs move on inputs that nothing was fitted to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from gracile import decompose, prune
from gracile.decompose.forms.form import CONVOLUTIONS
from gracile.decompose.options import Timer
from gracile.errors import BadArgument, BudgetError
from gracile.graph import capture, cost
from gracile.observe import Calibration, Outputs, divergence, joined, outputs
from gracile.prune.leave import left_layers
from gracile.records import Bytes, Cost, DecomposePlan, JointPlan, JointTrial, Macs, Params, PrunePlan

from .applying import apply

SHARES = (1.0, 0.85, 0.7, 0.5, 0.25, 0.0)
"""Parts of the saving that pruning brings, tried in this order."""
BATCH = 64
Batches = list[tuple[Tensor, ...]]
_WORSE = 2  # so many in a row, and the search is over
_LEAST = 8


def plan(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    budget: Macs | Params | Bytes,
    calibration: Calibration,
    criterion: prune.Criterion | None = None,
    forms: Sequence[decompose.Form] = decompose.FORMS,
    importance: Mapping[str, float] | None = None,
    shares: Sequence[float] = SHARES,
    held_out: float = 0.25,
    images: int = 256,
    leave: Sequence[str] = ("first", "last"),
    round_to: int = 1,
    trunk: prune.Trunk = "coupled",
    timer: Timer | None = None,
    seed: int = 0,
    on_try: Callable[[int, int], None] | None = None,
) -> JointPlan:
    """Choose for every layer whether channels go, it is factored, both or neither; the model stays as it is.

    For each part ``s`` of ``shares`` the model is pruned to ``before - s (before - limit)``, refitted,
    factored to ``limit`` and fitted again. The ``s`` whose outputs are nearest to the model's on held-out
    inputs is chosen; pruning alone is tried first, and wins a tie. The search ends early when two in a row
    are worse.

    Args:
        model: Any model that ``torch.export`` captures.
        inputs: Example inputs; one image, so that costs are those of one image.
        budget: What may stay of multiply-adds, parameters or bytes.
        calibration: Unlabelled inputs, a few hundred.
        criterion: Ranks channels; default :class:`gracile.prune.Reconstruction`.
        forms: Ways to factor that may be chosen.
        importance: Of layers' errors; default :func:`gracile.decompose.sensitivity` on the whole model.
        shares: Parts of the saving that pruning brings, each in ``[0, 1]``.
        held_out: Part of the calibration that judges, in ``(0, 1)``; the first inputs are fitted to.
        images: Inputs that trials are fitted to and judged by, at most so many each; channels are ranked on
            all that are not held out.
        leave: Layers left as they are, as for :func:`gracile.prune.plan`.
        round_to: Kept channels are a multiple of it.
        trunk: How residual trunks are pruned.
        timer: Layers are factored only where this measures them to be faster, see
            :func:`gracile.decompose.plan`.
        seed: Of random inputs and sampled positions.
        on_try: Told how many of how many trials are done, for a progress bar.

    Raises:
        BadArgument: Shares or ``held_out`` lie outside their range, or there are too few inputs.
        BudgetError: No way to share out the budget meets it.
        CaptureError: The model cannot be captured.
        NonFiniteError: Weights or activations hold NaN or infinity.

    Example:
        >>> from gracile.testing import net
        >>> model, inputs = net("plain")
        >>> images = torch.randn(48, 3, 8, 8)
        >>> found = plan(model, inputs, budget=Macs(fraction_kept=0.6), calibration=images, shares=(1.0, 0.5))
        >>> [trial.by_pruning for trial in found.trials], found.macs_after <= 0.6 * found.macs_before
        ([1.0, 0.5], True)
    """
    if images < 1:
        raise BadArgument("images", wanted="at least 1", found=f"{images=}")
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise BadArgument("shares", wanted="at least one part from 0 to 1", found=f"{tuple(shares)}")
    fitted, judged = _parted(calibration, held_out)
    tries = _Tries(
        model=model, inputs=inputs, budget=budget, ranked=_batches(fitted),
        fitted=_batches(fitted, images), judged=_batches(judged, images),
        criterion=prune.Remembered(criterion or prune.Reconstruction()), forms=tuple(forms),
        importance=importance, leave=tuple(leave), dense=_dense(model, inputs, leave), round_to=round_to,
        trunk=trunk, timer=timer, seed=seed, on_try=on_try,
    )  # fmt: skip
    return tries.best(sorted(set(shares), reverse=True))


@dataclass(kw_only=True)
class _Tries:
    """What all trials share."""

    model: nn.Module
    inputs: tuple[Tensor, ...]
    budget: Macs | Params | Bytes
    ranked: Batches
    fitted: Batches
    judged: Batches
    criterion: prune.Remembered
    forms: tuple[decompose.Form, ...]
    importance: Mapping[str, float] | None
    leave: tuple[str, ...]
    dense: tuple[str, ...]
    round_to: int
    trunk: prune.Trunk
    timer: Timer | None
    seed: int
    on_try: Callable[[int, int], None] | None
    wanted: list[Outputs] = field(default_factory=list)

    def best(self, shares: Sequence[float]) -> JointPlan:
        """Try parts in this order; the nearest outputs win."""
        whole = cost(self.model, self.inputs)
        self.wanted = [outputs(self.model, batch) for batch in self.judged]
        trials: list[JointTrial] = []
        found: JointPlan | None = None
        lowest, worse, refusal = float("inf"), 0, None
        for number, share in enumerate(shares):
            if self.on_try is not None:
                self.on_try(number, len(shares))
            try:
                tried = self.tried(share, whole)
            except BudgetError as error:
                refusal = refusal or error
                trials.append(JointTrial(by_pruning=share, divergence=None, why=str(error.found)))
                continue
            moved = self.moved(tried)
            trials.append(_trial(tried, moved))
            worse = worse + 1 if moved >= lowest else 0
            if moved < lowest:
                found, lowest = tried, moved
            if worse >= _WORSE:
                break
        if found is None:
            assert refusal is not None
            raise refusal
        return replace(found, trials=tuple(trials))

    def tried(self, share: float, whole: Cost) -> JointPlan:
        """Plans for one part."""
        first, limit = _bounds(self.budget, whole, share)
        removed = prune.plan(
            self.model, self.inputs, criterion=self.criterion, budget=first, leave=self.leave,
            round_to=self.round_to, calibration=self.ranked, trunk=self.trunk, seed=self.seed,
        )  # fmt: skip
        if share < 1:
            factored = self.factored(removed, limit)
        else:
            factored = DecomposePlan(
                layers=(), with_data=True, macs_before=removed.macs_after, macs_after=removed.macs_after,
                params_before=removed.params_after, params_after=removed.params_after,
            )  # fmt: skip
        return JointPlan(
            prune=removed, decompose=factored, trials=(), by_pruning=share, budget=str(self.budget)
        )

    def factored(self, removed: PrunePlan, limit: int) -> DecomposePlan:
        """Ranks of what pruning leaves."""
        if self.importance is None:
            self.importance = decompose.sensitivity(
                self.model, self.inputs, self.fitted, forms=self.forms, leave=self.dense, seed=self.seed
            )
        narrow = prune.apply(self.model, removed, inputs=self.inputs, calibration=self.fitted, seed=self.seed)
        return decompose.plan(
            narrow, self.inputs, budget=_rest(self.budget, cost(narrow, self.inputs), limit),
            forms=self.forms, calibration=self.fitted, importance=self.importance, leave=self.dense,
            timer=self.timer, seed=self.seed,
        )  # fmt: skip

    def moved(self, tried: JointPlan) -> float:
        """Divergence of the outputs on what was held out."""
        small = apply(self.model, tried, inputs=self.inputs, calibration=self.fitted, seed=self.seed)
        apart = [
            divergence(wanted, outputs(small, batch)) * len(batch[0])
            for wanted, batch in zip(self.wanted, self.judged, strict=True)
        ]
        return max(sum(apart), 0.0) / sum(len(batch[0]) for batch in self.judged)


def _dense(model: nn.Module, inputs: tuple[Tensor, ...], leave: Sequence[str]) -> tuple[str, ...]:
    """Layers that are not factored, by name."""
    names = left_layers(capture(model, inputs), leave)
    return tuple(n for n in names if isinstance(model.get_submodule(n), (*CONVOLUTIONS, nn.Linear)))


def _parted(calibration: Calibration, held_out: float) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs to fit to and inputs to judge by."""
    if not 0 < held_out < 1:
        raise BadArgument("held_out", wanted="a share above 0 and below 1", found=f"{held_out=}")
    whole = joined(calibration)
    count = len(whole[0])
    if count < _LEAST:
        raise BadArgument("calibration", wanted=f"at least {_LEAST} inputs", found=f"{count}")
    at = min(max(count - round(held_out * count), 1), count - 1)
    return tuple(x[:at] for x in whole), tuple(x[at:] for x in whole)


def _batches(data: tuple[Tensor, ...], most: int | None = None) -> Batches:
    return list(zip(*(torch.split(x[:most], BATCH) for x in data), strict=True))


def _bounds(budget: Macs | Params | Bytes, whole: Cost, share: float) -> tuple[Macs | Params | Bytes, int]:
    """What pruning may leave when it brings ``share`` of the saving, and what both may leave."""
    if share == 1:
        first: Macs | Params | Bytes = budget
    elif isinstance(budget, Bytes):
        all_bytes = budget.of(whole)
        first = replace(budget, at_most=round(all_bytes - share * max(all_bytes - budget.at_most, 0)))
    else:
        first = replace(budget, fraction_kept=1 - share * (1 - budget.fraction_kept))
    if isinstance(budget, Bytes):
        return first, budget.at_most
    before = whole.macs if isinstance(budget, Macs) else whole.params
    return first, int(budget.fraction_kept * before + 1e-6)


def _rest(budget: Macs | Params | Bytes, narrow: Cost, limit: int) -> Macs | Params | Bytes:
    """The whole budget, as one of the narrowed model."""
    if isinstance(budget, Bytes):
        return budget
    before = narrow.macs if isinstance(budget, Macs) else narrow.params
    return replace(budget, fraction_kept=min(1.0, limit / max(before, 1)))


def _trial(tried: JointPlan, moved: float) -> JointTrial:
    return JointTrial(
        by_pruning=tried.by_pruning,
        divergence=moved,
        layers_factored=len(tried.decompose.layers),
        macs=tried.macs_after,
        params=tried.params_after,
    )
