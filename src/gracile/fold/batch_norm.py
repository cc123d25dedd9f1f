"""Batch norm folded into the layers before and behind it.

Source: Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam and Kalenichenko, "Quantization and training of neural
networks for efficient integer-arithmetic-only inference", CVPR 2018, arXiv 1712.05877, equation 14, for a
norm right behind a layer; Yvinec, Dapogny and Bailly, "To fold or not to fold: a necessary and sufficient
condition on batch-normalization layers folding", IJCAI 2022, arXiv 2203.14646, for all others
(:mod:`gracile.fold.region`). Where we differ: norms are found by data flow on the captured graph, never by
the order in which modules were registered, and folds are tried on the model itself.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from gracile import surgery
from gracile.errors import BadArgument
from gracile.graph import Captured, Trial, capture, stand_in
from gracile.graph.rules import bound, packet, shape_of
from gracile.nn import Part, hand_over_
from gracile.records import FoldMove, FoldPair, FoldPlan, Skipped

from .absorb import BatchNorm, Convolution, absorb_, give_bias_, numbers_of, prepare_
from .moves import Refusal, find_move, owner, scales, survey
from .region import Norm, Site

TOLERANCE = 1e-4  # of the largest output


def plan(model: nn.Module, inputs: tuple[Tensor, ...], *, everywhere: bool = True, seed: int = 0) -> FoldPlan:
    """Find the batch norms that can be folded; the model is left as it was.

    A norm right behind a convolution or linear layer whose output goes nowhere else is a pair. Any other is
    moved where all paths from its input, or all from its output, end at layers that can take it in, through
    sums, concatenations, splits, means and data movement; so are modules that only scale and shift channels.
    Norms that stay are recorded with the reason.

    Args:
        model: Any model that ``torch.export`` captures.
        inputs: Example inputs. Where a move needs a border map, it holds for images of this size.
        everywhere: Also moves, not pairs alone.
        seed: Of the random inputs that the folds are tried on.

    Raises:
        CaptureError: The model cannot be captured.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.BatchNorm2d(2))
        >>> print(plan(net, (torch.zeros(1, 1, 5, 5),)))
        1 norms folded, 1 left
          1 into 0
          3 stays: before it stands relu, behind it the network's output
    """
    captured = capture(model, inputs)
    trial = Trial(model, inputs, seed=seed)
    barred: dict[str, str] = {}
    while True:
        found = _search(captured, model, barred, everywhere)
        culprit = _culprit(trial, found)
        if culprit is None:
            return found
        barred |= dict.fromkeys(culprit, "folding it changes the model's outputs")


def apply(model: nn.Module, plan: FoldPlan) -> nn.Module:
    """Return a copy of ``model`` with the planned norms folded: the same outputs in evaluation mode.

    Raises:
        BadArgument: The plan was made for another model.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.BatchNorm1d(3)).eval()
        >>> x = torch.randn(4, 2)
        >>> folded = apply(net, FoldPlan(pairs=(FoldPair(layer="0", norm="1"),)))
        >>> torch.allclose(folded(x), net(x)), folded
        (True, Sequential(
          (0): Linear(in_features=2, out_features=3, bias=True)
          (1): Identity()
        ))
    """
    folded = copy.deepcopy(model)
    surgery.absorb_masks_(folded)
    for pair in plan.pairs:
        layer, norm = _pair_of(folded, pair)
        fold_(layer, norm)
        replace_(folded, norm)
    for move in plan.moves:
        move_(folded, move)
    return folded


def apply_structure(model: nn.Module, plan: FoldPlan) -> nn.Module:
    """Return a copy of ``model`` of the shape that the folds leave, to load a folded checkpoint into.

    Biases and border maps are added and norms replaced; the numbers are not those of a fold.

    Raises:
        BadArgument: The plan was made for another model.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.BatchNorm1d(3))
        >>> sorted(apply_structure(net, FoldPlan(pairs=(FoldPair(layer="0", norm="1"),))).state_dict())
        ['0.bias', '0.weight']
    """
    folded = copy.deepcopy(model)
    surgery.absorb_masks_(folded)
    for pair in plan.pairs:
        layer, norm = _pair_of(folded, pair)
        give_bias_(layer)
        replace_(folded, norm)
    for move in plan.moves:
        norm = _get(folded, move.norm)
        for part in move.parts:
            _get(folded, part.layer)
            prepare_(folded, part)
        replace_(folded, norm)
    return folded


@torch.no_grad()
def fold_(layer: nn.Module, norm: nn.Module) -> None:
    """Multiply a batch norm in evaluation mode into the layer before it, in place.

    Args:
        layer: Convolution (any rank, grouped, transposed) or linear layer; gets a bias.
        norm: The batch norm behind it; unchanged, to be taken out.
    """
    assert isinstance(norm, BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    give_bias_(layer)
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    numbers = surgery.NormNumbers(
        mean=norm.running_mean, var=norm.running_var, eps=norm.eps, gamma=norm.weight, beta=norm.bias
    )
    groups = layer.groups if isinstance(layer, Convolution) else 1
    transposed = isinstance(layer, Convolution) and layer.transposed
    folded = surgery.fold_norm(weight, bias, numbers, groups=groups, transposed=transposed)
    weight.copy_(folded[0])
    bias.copy_(folded[1])


def move_(model: nn.Module, move: FoldMove) -> None:
    """Carry out one move, in place.

    Raises:
        BadArgument: The model has no such layers, or a scale that has to be undone is zero.
    """
    norm = _get(model, move.norm)
    for part in move.parts:
        _get(model, part.layer)
    scale, shift = numbers_of(norm, move)
    for part in move.parts:
        absorb_(model, part, scale, shift)
    replace_(model, norm)


def _pair_of(model: nn.Module, pair: FoldPair) -> tuple[nn.Module, nn.Module]:
    layer, norm = _get(model, pair.layer), _get(model, pair.norm)
    if not isinstance(layer, Convolution | nn.Linear) or not isinstance(norm, BatchNorm):
        raise BadArgument(
            f"{pair.layer}, {pair.norm}",
            wanted="a convolution or linear layer and a batch norm",
            found=f"{type(layer).__name__} and {type(norm).__name__}",
            do="Make the plan anew for this model.",
        )
    return layer, norm


def _get(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise BadArgument(
            name,
            wanted="a module of the model",
            found="no such name",
            do="Make the plan anew for this model.",
        ) from error


def replace_(model: nn.Module, norm: nn.Module) -> None:
    """Put what a norm does besides normalising, if anything, wherever it is registered."""
    extras = [child for child in norm.children() if not isinstance(child, Part)]
    rest: nn.Module = nn.Sequential(*extras) if extras else nn.Identity()
    hand_over_(norm, rest.train(norm.training))  # a fused activation, and parts that hang on it
    stand_in(model, norm, rest)


def _search(captured: Captured, model: nn.Module, barred: Mapping[str, str], everywhere: bool) -> FoldPlan:
    """All folds but those of the barred norms."""
    site = survey(captured, model)
    skipped: list[Skipped] = []
    norms: list[tuple[Norm, fx.Node]] = []
    for node in captured.graph.nodes:
        if node.op == "call_function" and packet(node) == "batch_norm":
            name, why = owner(captured, model, node)
            if why or name in barred:
                skipped.append(Skipped(name, why or barred[name], captured.source(node)))
            else:
                norms.append((Norm(name, bound(node)["input"], node, node), node))
    pairs = []
    for norm, node in norms:
        layer = _before(site, node)
        if layer is not None:
            pairs.append(FoldPair(layer=layer, norm=norm.name))
            site.gone[node] = norm
    small = apply(model, FoldPlan(pairs=tuple(pairs)))
    moves = []
    extra = [(norm, norm.enters) for norm in scales(captured, model) if norm.name not in barred]
    for norm, node in [*norms, *(extra if everywhere else [])]:
        if node in site.gone:
            continue
        found = _moved(site, norm, small, everywhere)
        if isinstance(found, FoldMove):
            moves.append(found)
            site.gone[node] = norm
        elif packet(node) == "batch_norm":
            skipped.append(Skipped(norm.name, found.why, captured.source(node)))
    return FoldPlan(pairs=tuple(pairs), skipped=tuple(skipped), moves=tuple(moves))


def _before(site: Site, node: fx.Node) -> str | None:
    """The layer right before a norm, if nothing else reads what it gives."""
    source = bound(node)["input"]
    if source not in site.layers or len(source.users) != 1:
        return None
    if packet(source) == "linear" and len(shape_of(source)) != 2:
        return None
    return site.layers[source]


def _moved(site: Site, norm: Norm, small: nn.Module, everywhere: bool) -> FoldMove | Refusal:
    """A move, carried out on ``small``, or why there is none."""
    if not everywhere:
        return Refusal("it does not stand right behind a layer that nothing else reads")
    asked = FoldMove(norm=norm.name, parts=(), channels=norm.channels, axis=norm.axis,
                     rank=len(shape_of(norm.reads)))  # fmt: skip
    try:
        scale, _ = numbers_of(small.get_submodule(norm.name), asked)
        found = find_move(site, norm, small, scale)
        if isinstance(found, FoldMove):
            move_(small, found)
    except BadArgument as error:
        return Refusal(str(error))
    return found


def _culprit(trial: Trial, plan: FoldPlan) -> tuple[str, ...] | None:
    """The first fold that changes the outputs, by bisection; ``None`` where none does."""
    folds = len(plan.norms)
    if not folds or _same(trial, plan):
        return None
    good, bad = 0, folds
    while bad - good > 1:
        middle = (good + bad) // 2
        if _same(trial, _first(plan, middle)):
            good = middle
        else:
            bad = middle
    return plan.norms[good:bad]


def _first(plan: FoldPlan, count: int) -> FoldPlan:
    return replace(plan, pairs=plan.pairs[:count], moves=plan.moves[: max(0, count - len(plan.pairs))])


def _same(trial: Trial, plan: FoldPlan) -> bool:
    return trial.kept_by(lambda model: apply(model, plan), TOLERANCE)
