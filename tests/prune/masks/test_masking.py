"""Masks: shares, rankings, what is left alone, and the zeros written."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gracile import graph, prune, surgery
from gracile.errors import BadArgument, BudgetError, NonFiniteError
from gracile.prune.masks.masking import by_all
from gracile.prune.masks.weights import Weight, find_weights
from gracile.records import MaskPlan, ParamMask, ParamSlice
from gracile.testing import NETS, net

INPUTS = (torch.zeros(1, 2, 8, 8),)


def flat(weight: np.ndarray, ids: np.ndarray, param: str = "w") -> prune.Entries:
    return prune.Entries(param=param, weight=weight, ids=ids, count=int(ids.max()) + 1)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("name", ["residual", "depthwise", "grouped", "upsampling", "attention"])
def test_each_layer_loses_its_smallest_weights(name: str, share: float) -> None:
    model, inputs = net(name)
    plan = prune.mask_plan(model, inputs, sparsity=share, leave=())
    held = dict(model.named_parameters())
    for mask in plan.masks:
        weight = held[mask.param].detach().abs().numpy()
        assert mask.of_all - mask.kept == int(share * mask.of_all)
        if 0 < mask.kept < mask.of_all:
            assert weight[~mask.keep].max() <= weight[mask.keep].min()


def test_only_weights_of_convolutions_and_linear_layers_are_masked() -> None:
    for name in NETS:
        model, inputs = net(name)
        plan = prune.mask_plan(model, inputs, sparsity=0.5, leave=())
        kinds = (nn.modules.conv._ConvNd, nn.Linear)
        wanted = {f"{path}.weight" for path, m in model.named_modules() if isinstance(m, kinds)}
        assert {mask.param for mask in plan.masks} == wanted


def test_first_and_last_are_left_alone_and_say_so(residual: nn.Module) -> None:
    plan = prune.mask_plan(residual, INPUTS, sparsity=0.5)
    assert {s.where: s.why for s in plan.skipped} == {"stem": "left alone: first", "head": "left alone: last"}
    named = prune.mask_plan(residual, INPUTS, sparsity=0.5, leave=("conv*", "last"))
    assert {m.param for m in named.masks} == {"stem.weight", "down.weight"}
    with pytest.raises(BadArgument, match="fits none"):
        prune.mask_plan(residual, INPUTS, leave=("nothing",))


def test_a_global_ranking_against_sorting_all_weights(residual: nn.Module) -> None:
    plan = prune.mask_plan(residual, INPUTS, sparsity=0.7, scope="global", leave=())
    held = dict(residual.named_parameters())
    every = np.concatenate([held[m.param].detach().abs().numpy().ravel() for m in plan.masks])
    kept = np.concatenate([m.keep.ravel() for m in plan.masks])
    wish = int(0.7 * len(every))
    assert (~kept).sum() == wish
    assert set(np.argsort(every)[:wish].tolist()) == set(np.flatnonzero(~kept).tolist())


LAYER = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), min_size=1, max_size=5)


@given(st.lists(LAYER, min_size=1, max_size=4), st.floats(0, 0.99))
def test_a_global_ranking_never_exceeds_its_share_nor_empties_a_layer(
    sizes_and_scores: list[list[tuple[int, int]]], share: float
) -> None:
    layers, scores = [], []
    for layer in sizes_and_scores:
        ids = np.repeat(np.arange(len(layer)), [size for size, _ in layer])
        layers.append(flat(np.zeros(len(ids)), ids))
        scores.append(np.array([score for _, score in layer], dtype=float))
    total = sum(len(e.ids) for e in layers)
    safe = [int(e.sizes[int(np.argmax(s))]) for e, s in zip(layers, scores, strict=True)]
    wish = int(share * total + 1e-9)
    if wish > total - sum(safe):
        with pytest.raises(BudgetError, match="at most"):
            by_all(layers, scores, share)
        return
    stays = by_all(layers, scores, share)
    gone = sum(int(e.sizes[~s].sum()) for e, s in zip(layers, stays, strict=True))
    assert gone <= wish
    assert all(s.any() for s in stays)
    highest_gone = max((s[~k].max() for s, k in zip(scores, stays, strict=True) if not k.all()), default=-1)
    rest = [(s, k, int(np.argmax(s))) for s, k in zip(scores, stays, strict=True)]
    for s, k, best in rest:  # what stays scores at least as much as all that goes, but for each layer's best
        assert all(score >= highest_gone for i, score in enumerate(s) if k[i] and i != best)


def test_entries_of_a_kernel_go_together(residual: nn.Module) -> None:
    for order, norm in ((1, lambda w: np.abs(w).sum((2, 3))), (2, lambda w: (w**2).sum((2, 3)))):
        plan = prune.mask_plan(
            residual, INPUTS, granularity=prune.Kernel(), criterion=prune.EntryNorm(order=order), sparsity=0.5
        )
        mask = next(m for m in plan.masks if m.param == "conv3.weight")
        norms = norm(residual.get_parameter("conv3.weight").detach().double().numpy())
        kernels = mask.keep.reshape(*mask.shape[:2], -1)
        assert (kernels.all(2) == kernels.any(2)).all()
        assert (kernels.any(2) == (norms > np.sort(norms.ravel())[norms.size // 2 - 1])).all()


def test_two_of_four_along_the_inputs(depthwise: nn.Module) -> None:
    plan = prune.mask_plan(depthwise, INPUTS, granularity=prune.NofM(), leave=())
    assert plan.sparsity == 0.5
    for mask in plan.masks:
        columns = mask.keep.reshape(mask.shape[0], mask.shape[1], -1)
        for start in range(0, mask.shape[1], 4):
            kept = columns[:, start : start + 4].sum(1)
            assert (kept == min(2, mask.shape[1] - start)).all()


def test_transposed_and_grouped_weights_are_seen_by_outputs_and_inputs() -> None:
    up = nn.ConvTranspose2d(4, 6, 2, groups=2)
    (weight,), _ = find_weights(nn.Sequential(up), (torch.zeros(1, 4, 3, 3),))
    assert (weight.groups, weight.transposed) == (2, True)
    numbers = np.arange(up.weight.numel()).reshape(up.weight.shape)
    seen = weight.seen(numbers)
    assert seen.shape == (6, 2, 2, 2)
    for o in range(6):  # output o of group o // 3 reads the two inputs of that group
        for i in range(2):
            assert (seen[o, i] == numbers[o // 3 * 2 + i, o % 3]).all()
    keep = np.random.default_rng(0).random(seen.shape) < 0.5
    assert np.array_equal(weight.seen(weight.stored(keep)), keep)


def test_a_masked_channel_of_a_transposed_convolution_emits_its_bias() -> None:
    up = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, groups=2))
    inputs = (torch.randn(1, 4, 3, 3),)
    plan = prune.mask_plan(up, inputs, granularity=prune.OutputChannel(), sparsity=0.5, leave=())
    small = prune.apply_masks(up, plan)
    weight = Weight(param="0.weight", layer="0", shape=(4, 3, 2, 2), groups=2, transposed=True)
    gone = ~weight.seen(plan.masks[0].keep).reshape(6, -1).any(1)
    assert gone.sum() == 3
    out = small(*inputs)
    assert torch.equal(out[0, gone].flatten(1).std(1), torch.zeros(3))


def test_a_masked_input_channel_no_longer_matters(residual: nn.Module) -> None:
    plan = prune.mask_plan(
        residual, INPUTS, granularity=prune.InputChannel(), sparsity=0.5, leave=("conv*", "last", "down")
    )
    sparse = prune.apply_masks(residual, plan)
    (mask,) = plan.masks
    gone = int(np.flatnonzero(~mask.keep.any((0, 2, 3)))[0])
    images = torch.randn(2, 2, 8, 8)
    changed = images.clone()
    changed[:, gone] += 1
    assert torch.equal(sparse(images), sparse(changed))
    assert not torch.equal(residual(images), residual(changed))


def test_gradients_rank_by_weight_times_gradient(residual: nn.Module) -> None:
    images, labels = torch.randn(12, 2, 8, 8), torch.randint(3, (12,))
    batches = list(zip(images.split(4), labels.split(4), strict=True))
    before = copy.deepcopy(residual.state_dict())
    found = prune.mean_gradients(residual.train(), batches)
    assert residual.training
    assert all(torch.equal(before[n], t) for n, t in residual.state_dict().items())
    assert all(p.grad is None for p in residual.parameters())
    residual.eval()
    total = 0.0
    for x, y in batches:
        (gradient,) = torch.autograd.grad(
            nn.functional.cross_entropy(residual(x), y), [residual.get_parameter("conv1.weight")]
        )
        total = total + gradient.abs()
    assert torch.allclose(found["conv1.weight"], total / 3, atol=1e-7)
    plan = prune.mask_plan(residual, INPUTS, criterion=prune.EntryGradient(), sparsity=0.5, gradients=found)
    mask = next(m for m in plan.masks if m.param == "conv1.weight")
    score = (
        residual.get_parameter("conv1.weight").detach().double().abs() * found["conv1.weight"].double()
    ).numpy()
    assert score[~mask.keep].max() <= score[mask.keep].min()
    with pytest.raises(BadArgument, match="mean_gradients"):
        prune.mask_plan(residual, INPUTS, criterion=prune.EntryGradient())
    with pytest.raises(BadArgument, match="at least one batch"):
        prune.mean_gradients(residual, [])


def test_random_masks_follow_the_seed(residual: nn.Module) -> None:
    plans = [
        prune.mask_plan(residual, INPUTS, criterion=prune.EntryRandom(), sparsity=0.5, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert plans[0] == plans[1] != plans[2]


@pytest.mark.parametrize("criterion", ["random", "l1"])
@pytest.mark.parametrize("granularity", sorted(prune.GRANULARITIES))
def test_what_went_before_goes_first(granularity: str, criterion: str, residual: nn.Module) -> None:
    kind = prune.GRANULARITIES[granularity]
    way = prune.ENTRY_CRITERIA[criterion]
    early = prune.mask_plan(residual, INPUTS, granularity=kind, criterion=way, sparsity=0.26, seed=1)
    later = prune.mask_plan(
        residual, INPUTS, granularity=kind, criterion=way, sparsity=0.5, previous=early, seed=2
    )
    assert later.kept < early.kept
    for a, b in zip(early.masks, later.masks, strict=True):
        assert not (b.keep & ~a.keep).any()


def test_applying_writes_exact_zeros_and_changes_nothing_else(net: nn.Module) -> None:
    before = copy.deepcopy(net.state_dict())
    plan = prune.mask_plan(net, INPUTS, sparsity=0.6)
    small = prune.apply_masks(net, plan)
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())
    masks = {m.param: torch.from_numpy(m.keep) for m in plan.masks}
    assert small.state_dict().keys() == before.keys()
    for name, tensor in small.state_dict().items():
        keep = masks.get(name, torch.ones_like(tensor, dtype=torch.bool))
        assert torch.equal(tensor, before[name].masked_fill(~keep, 0))
    again = prune.apply_masks(small, plan)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), small.parameters(), strict=True))


def test_a_plan_for_another_model_is_refused(residual: nn.Module, concat: nn.Module) -> None:
    plan = prune.mask_plan(residual, INPUTS, sparsity=0.6)
    before = copy.deepcopy(concat.state_dict())
    with pytest.raises(BadArgument, match="no such name"):
        prune.apply_masks_(concat, plan)
    other = MaskPlan(masks=(ParamMask.of("stem.weight", np.zeros((2, 2), dtype=bool), "element"),))
    with pytest.raises(BadArgument, match="shape"):
        prune.apply_masks_(concat, other)
    assert all(torch.equal(before[n], t) for n, t in concat.state_dict().items())


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"sparsity": 1.0}, "sparsity"),
        ({"sparsity": -0.1}, "sparsity"),
        ({"scope": "everywhere"}, "scope"),
        ({"scope": "global", "granularity": prune.NofM()}, "scope"),
        ({"sparsity": 0.6, "granularity": prune.NofM()}, "sparsity"),
    ],
)
def test_bad_arguments(fields: dict[str, object], where: str, residual: nn.Module) -> None:
    with pytest.raises(BadArgument) as caught:
        prune.mask_plan(residual, INPUTS, **fields)
    assert caught.value.where == where


def test_nan_weights_are_refused(residual: nn.Module) -> None:
    residual.get_parameter("conv1.weight").data[0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"conv1\.weight"):
        prune.mask_plan(residual, INPUTS)


class Computed(nn.Module):
    """A weight that is worked out in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.randn(4, 2))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.linear(x, self.raw / self.raw.norm()))


def test_a_computed_weight_is_skipped_with_its_line() -> None:
    plan = prune.mask_plan(Computed(), (torch.zeros(1, 2),), sparsity=0.5, leave=())
    assert [m.param for m in plan.masks] == ["head.weight"]
    (skip,) = plan.skipped
    assert "computed" in skip.why
    assert "self.raw" in skip.source


def test_masks_follow_a_removal_of_channels(residual: nn.Module) -> None:
    masks = prune.mask_plan(residual, INPUTS, sparsity=0.5)
    sparse = prune.apply_masks(residual, masks)
    removal = prune.plan(sparse, INPUTS, budget=prune.PerLayer(ratio=0.5))
    small = surgery.apply(sparse, removal)
    narrow = prune.narrow_masks(masks, removal.slices)
    assert narrow.of_all < masks.of_all
    held = dict(small.named_parameters())
    for mask in narrow.masks:
        assert np.array_equal(mask.keep, held[mask.param].detach().numpy() != 0)
    wrong = ParamSlice(param="conv1.weight", axis=0, size=99, keep=(0,))
    with pytest.raises(BadArgument, match="99 entries"):
        prune.narrow_masks(masks, [wrong])


def test_masks_leave_costs_as_they_are(residual: nn.Module) -> None:
    plan = prune.mask_plan(residual, INPUTS, sparsity=0.9)
    sparse = prune.apply_masks(residual, plan)
    assert graph.cost(sparse, INPUTS).macs == graph.cost(residual, INPUTS).macs
