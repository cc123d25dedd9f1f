"""From scores of entries to a plan of masks, and the plan carried out.

Nothing gets smaller or faster by itself: shapes stay, weights become zero. What it gains is told by the
archive's size, or by a runtime for sparse matrices.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gracile.errors import BadArgument, BudgetError
from gracile.records import MaskPlan, ParamMask, ParamSlice, Skipped
from gracile.surgery.reference import tensors_of

from ..criteria.criterion import check_finite
from .entries import Entries, EntryCriterion, Floats
from .entry_norm import EntryNorm
from .granularity import Element, Granularity, NofM
from .weights import Weight, find_weights

Scope = Literal["layer", "global"]
SCOPES = ("layer", "global")
PLAIN = EntryNorm()
SINGLE = Element()


def mask_plan(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    granularity: Granularity = SINGLE,
    criterion: EntryCriterion = PLAIN,
    sparsity: float | None = None,
    scope: Scope = "layer",
    leave: Sequence[str] = ("first", "last"),
    gradients: Mapping[str, Tensor] | None = None,
    previous: MaskPlan | None = None,
    seed: int = 0,
) -> MaskPlan:
    """Choose the weights that become zero; the model is left as it was.

    Args:
        model: Any model that ``torch.export`` captures.
        inputs: Example inputs.
        granularity: What goes as one; default single weights.
        criterion: How entries are ranked, the lowest go; default their magnitude.
        sparsity: Share of zeros, from 0 up to but without 1. Default 0.5; for N:M ``1 - n / m``.
        scope: ``"layer"``: this share of the entries of every layer, rounded down. ``"global"``: this share
            of the weights of all layers together, lowest scores first; no layer loses its last entry.
        leave: Layers left alone, by default the first and the last; see
            :func:`~gracile.prune.leave.left_layers`. Biases and normalisations are never masked.
        gradients: For criteria that need them, see :func:`~gracile.prune.masks.mean_gradients`.
        previous: A plan whose zeros go before all others.
        seed: Of random scores.

    Raises:
        BadArgument: ``sparsity`` or ``scope`` lie outside their range, a name in ``leave`` fits nothing,
            gradients are missing, or gradients or previous masks are those of a model of other shapes.
        BudgetError: So many weights cannot go; the error names how many can.
        CaptureError: The model cannot be captured.
        NonFiniteError: Weights hold NaN or infinity.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> plan = mask_plan(net, (torch.zeros(1, 4),), sparsity=0.75, leave=("last",))
        >>> plan.kept, plan.of_all, plan.skipped[0].where
        (8, 32, '2')
    """
    weights, skipped = find_weights(model, inputs, leave)
    return choose_masks(model, weights, granularity=granularity, criterion=criterion, sparsity=sparsity,
                        scope=scope, gradients=gradients, previous=previous, seed=seed,
                        skipped=skipped)  # fmt: skip


def choose_masks(
    model: nn.Module,
    weights: Sequence[Weight],
    *,
    granularity: Granularity = SINGLE,
    criterion: EntryCriterion = PLAIN,
    sparsity: float | None = None,
    scope: Scope = "layer",
    gradients: Mapping[str, Tensor] | None = None,
    previous: MaskPlan | None = None,
    seed: int = 0,
    skipped: tuple[Skipped, ...] = (),
) -> MaskPlan:
    """Like :func:`mask_plan` for weights that are known already, so that nothing is captured again."""
    share = check_sparsity(granularity, sparsity, scope)
    check_finite(model)
    held = tensors_of(model)
    before = {m.param: m.keep for m in previous.masks} if previous is not None else {}
    layers, scores = [], []
    for weight in weights:
        entries = _entries(weight, granularity, held, gradients or {}, seed)
        score = np.array(criterion(entries), dtype=np.float64)
        if weight.param in before:
            _check_shape("previous", weight.param, before[weight.param].shape, held[weight.param])
            kept = np.asarray(weight.seen(before[weight.param]), dtype=np.float64)
            score[entries.mean(kept) == 0] = -math.inf
        layers.append(entries)
        scores.append(score)
    if isinstance(granularity, NofM):
        keeps = [granularity.keep(s.reshape(e.ids.shape), share) for e, s in zip(layers, scores, strict=True)]
    else:
        chosen = by_layer(scores, share) if scope == "layer" else by_all(layers, scores, share)
        keeps = [stays[e.ids] for e, stays in zip(layers, chosen, strict=True)]
    masks = tuple(
        ParamMask.of(w.param, w.stored(keep), granularity.text)
        for w, keep in zip(weights, keeps, strict=True)
    )
    return MaskPlan(masks=masks, skipped=skipped, criterion=str(criterion), scope=scope, sparsity=share)


def check_sparsity(granularity: Granularity, sparsity: float | None, scope: str) -> float:
    """The share of zeros, filled in where it follows from the granularity.

    Raises:
        BadArgument: It lies outside its range, or the scope does not fit.
    """
    if scope not in SCOPES:
        raise BadArgument("scope", wanted=f"one of {', '.join(SCOPES)}", found=repr(scope))
    if isinstance(granularity, NofM):
        most = granularity.sparsity
        if scope == "global":
            raise BadArgument(
                "scope", wanted="'layer' with n:m, which is the same everywhere", found=repr(scope)
            )
        if sparsity is not None and not 0 <= sparsity <= most + 1e-9:
            wanted = f"from 0 to {most:g}, which is all that {granularity.text} gives"
            raise BadArgument(
                "sparsity", wanted=wanted, found=f"{sparsity=}", do="Leave it out, or change n:m."
            )
        return most if sparsity is None else sparsity
    share = 0.5 if sparsity is None else sparsity
    if not 0 <= share < 1:
        raise BadArgument("sparsity", wanted="a share of at least 0 and below 1", found=f"{sparsity=}")
    return share


def _entries(
    weight: Weight,
    granularity: Granularity,
    held: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    seed: int,
) -> Entries:
    def seen(tensor: Tensor) -> Floats:
        return np.asarray(weight.seen(tensor.detach().double().cpu().numpy()), dtype=np.float64)

    values = seen(held[weight.param])
    ids = granularity.entries(values.shape, weight.groups)
    gradient = gradients.get(weight.param)
    if gradient is not None:
        _check_shape("gradients", weight.param, gradient.shape, held[weight.param])
    return Entries(
        param=weight.param,
        weight=values,
        ids=ids,
        count=int(ids.max()) + 1,
        gradient=None if gradient is None else np.abs(seen(gradient)),
        seed=seed,
    )


def _check_shape(where: str, param: str, found: Sequence[int], tensor: Tensor) -> None:
    if tuple(found) != tuple(tensor.shape):
        raise BadArgument(
            where,
            wanted=f"shape {tuple(tensor.shape)} for {param}",
            found=f"{tuple(found)}",
            do="Make them anew for this model, or narrow masks with prune.narrow_masks.",
        )


def by_layer(scores: Sequence[Floats], share: float) -> list[NDArray[np.bool_]]:
    """Drop the share with the lowest scores of each layer, rounded down; equal scores go in order.

    Example:
        >>> by_layer([np.array([3.0, 1.0, 2.0])], 0.5)[0].tolist()
        [True, False, True]
    """
    found = []
    for score in scores:
        stays = np.ones(len(score), dtype=bool)
        stays[np.argsort(score, kind="stable")[: int(share * len(score) + 1e-9)]] = False
        found.append(stays)
    return found


def by_all(layers: Sequence[Entries], scores: Sequence[Floats], share: float) -> list[NDArray[np.bool_]]:
    """Drop the lowest scores of all layers until the share of the weights is reached, and not beyond it.

    Raises:
        BudgetError: More would have to go than can: the best entry of each layer stays.
    """
    if not layers:
        return []
    sizes = np.concatenate([e.sizes for e in layers])
    total, wish = int(sizes.sum()), int(share * int(sizes.sum()) + 1e-9)
    ends = np.cumsum([e.count for e in layers])
    safe = [int(end) - e.count + int(np.argmax(s)) for e, s, end in zip(layers, scores, ends, strict=True)]
    every = np.concatenate(scores)
    every[safe] = math.inf
    most = total - int(sizes[safe].sum())
    if wish > most:
        raise BudgetError(
            "sparsity",
            wanted=f"{wish:,} of {total:,} weights to be zero",
            found=f"that at most {most:,} can ({most / total:.4f} of them)",
            do="Ask for less, or leave fewer layers alone.",
        )
    order = np.argsort(every, kind="stable")
    gone = np.cumsum(sizes[order])
    stays = np.ones(len(every), dtype=bool)
    stays[order[: int(np.searchsorted(gone, wish, "right"))]] = False
    return np.split(stays, ends[:-1])


def apply_masks(model: nn.Module, plan: MaskPlan) -> nn.Module:
    """Return a copy of ``model`` with the zeros of ``plan`` written into its weights.

    Raises:
        BadArgument: The plan was made for a model of other shapes.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> plan = mask_plan(net, (torch.zeros(1, 2),), sparsity=0.5, leave=())
        >>> int((apply_masks(net, plan)[0].weight == 0).sum())
        2
    """
    return apply_masks_(copy.deepcopy(model), plan)


def apply_masks_(model: nn.Module, plan: MaskPlan) -> nn.Module:
    """Write the zeros of ``plan`` into the weights of ``model`` in place.

    Raises:
        BadArgument: The plan was made for a model of other shapes; nothing has been changed.
    """
    write_zeros(zeros_of(model, plan))
    return model


def zeros_of(model: nn.Module, plan: MaskPlan) -> list[tuple[Tensor, Tensor]]:
    """Each masked parameter of ``model`` with its mask, True where it is zero, on the same device.

    Raises:
        BadArgument: The plan was made for a model of other shapes.
    """
    held = tensors_of(model)
    found = []
    for mask in plan.masks:
        tensor = held.get(mask.param)
        if tensor is None or tuple(tensor.shape) != mask.shape:
            shape = "no such name" if tensor is None else f"shape {tuple(tensor.shape)}"
            raise BadArgument(mask.param, wanted=f"a parameter of shape {mask.shape}", found=shape,
                              do="Make the plan anew for this model.")  # fmt: skip
        found.append((tensor, torch.from_numpy(~mask.keep).to(tensor.device)))
    return found


def write_zeros(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set what :func:`zeros_of` found to exactly zero."""
    with torch.no_grad():
        for tensor, drop in pairs:
            tensor.masked_fill_(drop, 0.0)


def join_masks(earlier: MaskPlan | None, later: MaskPlan) -> MaskPlan:
    """``later``, and of ``earlier`` the masks of parameters that ``later`` does not name.

    Example:
        >>> a, b = (MaskPlan(masks=(ParamMask.of(n, np.ones(2, bool), "element"),)) for n in "ab")
        >>> [m.param for m in join_masks(a, b).masks]
        ['a', 'b']
    """
    named = {mask.param for mask in later.masks}
    others = () if earlier is None else tuple(m for m in earlier.masks if m.param not in named)
    return replace(later, masks=(*others, *later.masks))


def both_masks(earlier: MaskPlan | None, later: MaskPlan) -> MaskPlan:
    """``later`` with the zeros of ``earlier`` added: a weight stays where both let it stay.

    Example:
        >>> a, b = (MaskPlan(masks=(ParamMask.of("w", np.array(keep), "element"),))
        ...         for keep in ([True, False, True], [False, True, True]))
        >>> both_masks(a, b).masks[0].keep.tolist()
        [False, False, True]
    """
    joined = join_masks(earlier, later)
    before = {} if earlier is None else {m.param: m.keep for m in earlier.masks}
    masks = tuple(ParamMask.of(m.param, m.keep & before.get(m.param, m.keep), m.granularity)
                  for m in joined.masks)  # fmt: skip
    return replace(joined, masks=masks)


def narrow_masks(plan: MaskPlan, slices: Iterable[ParamSlice]) -> MaskPlan:
    """The masks of a model that lost channels: what is left of each mask.

    Args:
        plan: Masks of the model before the removal.
        slices: Of the removal's :class:`~gracile.records.PrunePlan`.

    Raises:
        BadArgument: The slices are those of another model.

    Example:
        >>> mask = ParamMask.of("w", np.array([[True, False], [False, False]]), "element")
        >>> cut = ParamSlice(param="w", axis=0, size=2, keep=(0,))
        >>> narrow_masks(MaskPlan(masks=(mask,)), [cut]).masks[0].keep.tolist()
        [[True, False]]
    """
    keeps = {m.param: m.keep for m in plan.masks}
    for part in slices:
        if part.param in keeps:
            keep = keeps[part.param]
            if part.axis >= keep.ndim or keep.shape[part.axis] != part.size:
                raise BadArgument(part.param, wanted=f"{part.size} entries along axis {part.axis}",
                                  found=f"a mask of shape {keep.shape}")  # fmt: skip
            keeps[part.param] = np.take(keep, part.keep, axis=part.axis)
    masks = tuple(ParamMask.of(m.param, keeps[m.param], m.granularity) for m in plan.masks)
    return replace(plan, masks=masks)
