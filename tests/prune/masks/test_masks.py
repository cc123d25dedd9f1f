"""Masked weights stay exactly zero through every optimizer, in every loop, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from gracile import prune, tune
from gracile.prune.training.gradual_masks import GradualMasks
from gracile.records import MaskPlan, SparsityPoint
from gracile.tune import StatefulHook, TuneConfig, fit

INPUTS = (torch.zeros(1, 3, 6, 6),)
CONFIG = TuneConfig(epochs=3, lr=0.05, batch_size=16, weight_decay=0.01, bf16=False, holdout=0.2)


def examples(count: int = 96) -> TensorDataset:
    images = torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return TensorDataset(images, (images.mean((1, 2, 3)) > 0).long())


def make() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(24, 2),
    )  # fmt: skip


def zeros(model: nn.Module, plan: MaskPlan) -> Iterator[bool]:
    """For each mask, whether exactly its weights are zero."""
    held = model.state_dict()
    for mask in plan.masks:
        yield np.array_equal(held[mask.param].numpy() != 0, mask.keep)


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_loop_of_ones_own_with_an_average(name: str) -> None:
    model = make()
    names, modules = list(model.state_dict()), repr(model)
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    images, labels = examples().tensors
    # Steps before masking fill the momentum of weights that will be masked.
    for _ in range(2):
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    plan = prune.mask_plan(model, INPUTS, sparsity=0.7, leave=())
    ema, masks = tune.Ema(model, decay=0.9), prune.Masks(plan)
    masks.on_begin(model, optimizer, average=ema.averaged)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    for step in range(4):
        masks.on_step_begin(model, optimizer, step=step, epoch=1)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        assert all(zeros(model, plan))  # before anything else sees the weights
        ema.update(model)
        masks.on_step_end(model, optimizer, step=step, epoch=1)
        assert all(zeros(ema.module, plan))
    assert all(not torch.equal(before[m.param], model.state_dict()[m.param]) for m in plan.masks)
    assert list(model.state_dict()) == names
    assert repr(model) == modules
    masks.release()
    optimizer.step()
    assert not all(zeros(model, plan))


@pytest.mark.parametrize("ema_decay", [None, 0.8])
def test_our_loop(ema_decay: float | None) -> None:
    model = make()
    plan = prune.mask_plan(model, INPUTS, granularity=prune.Kernel(), sparsity=0.5, leave=())
    config = TuneConfig(epochs=2, lr=0.05, batch_size=16, bf16=False, ema_decay=ema_decay)
    names = list(model.state_dict())
    fit(model, examples(), config, hooks=[prune.Masks(plan)])
    assert all(zeros(model, plan))
    assert list(model.state_dict()) == names
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any(p._backward_hooks for p in model.parameters())


def test_masked_training_is_training_of_the_masked_network() -> None:
    """With plain descent, the gradient of each weight that stays is that of the masked network."""
    model = make().eval()
    plan = prune.mask_plan(model, INPUTS, sparsity=0.6, leave=())
    by_hand = prune.apply_masks(model, plan)
    keep = {m.param: torch.from_numpy(m.keep) for m in plan.masks}
    images, labels = examples().tensors
    optimizer, masks = torch.optim.SGD(model.parameters(), lr=0.1), prune.Masks(plan)
    for step in range(3):
        masks.on_step_begin(model, optimizer, step=step, epoch=1)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        by_hand.zero_grad()
        nn.functional.cross_entropy(by_hand(images), labels).backward()
        with torch.no_grad():
            for name, p in by_hand.named_parameters():
                assert p.grad is not None
                p -= 0.1 * p.grad * keep.get(name, torch.ones(1))
    theirs = by_hand.state_dict()
    assert all(torch.allclose(t, theirs[n], atol=1e-6) for n, t in model.state_dict().items())


def gradual(**fields: object) -> GradualMasks:
    pace = fields.pop("pace", prune.Pace(begin=2, end=8, every=2))
    return GradualMasks(INPUTS, pace=pace, leave=("last",), **({"sparsity": 0.8} | fields))


@pytest.mark.parametrize("granularity", sorted(prune.GRANULARITIES))
def test_sparsity_follows_the_schedule(granularity: str) -> None:
    model, kind = make(), prune.GRANULARITIES[granularity]
    if granularity == "block":
        kind = prune.Block(rows=2, columns=3)  # fits, so that all blocks are of one size
    final = None if isinstance(kind, prune.NofM) else 0.6
    hook = gradual(granularity=kind, sparsity=final, schedule=prune.Linear())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    images, labels = examples(32).tensors
    before: MaskPlan | None = None
    for step in range(10):
        hook.on_step_begin(model, optimizer, step=step, epoch=1)
        assert (hook.plan is None) == (step < 2)
        assert hook.settled == (step >= 8)
        if hook.plan is not None:
            wanted = prune.mask_plan(make(), INPUTS, granularity=kind, leave=("last",),
                                     sparsity=hook.final * min((step - step % 2 - 2) / 6, 1))  # fmt: skip
            assert [m.kept for m in hook.plan.masks] == [m.kept for m in wanted.masks]
            assert all(zeros(model, hook.plan))
            if before is not None:
                pairs = zip(before.masks, hook.plan.masks, strict=True)
                assert not any((b.keep & ~a.keep).any() for a, b in pairs)
            before = hook.plan
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        hook.on_step_end(model, optimizer, step=step, epoch=1)
    assert [p.step for p in hook.points] == [2, 4, 6, 8]
    assert hook.points[-1].sparsity == hook.plan.found_sparsity
    assert hook.points[-1].layers == hook.plan.by_layer


def test_the_best_epoch_is_one_of_the_final_sparsity() -> None:
    """Early epochs are denser and may be better; they are not what was asked for."""
    model = make()
    hook = gradual(
        sparsity=0.95, pace=prune.Pace(begin=0, end=8, every=1)
    )  # 5 steps an epoch: ends in the second
    history = fit(model, examples(), CONFIG, hooks=[hook])
    assert history.best_epoch >= 2
    assert hook.plan is not None
    assert hook.plan.found_sparsity == pytest.approx(0.95, abs=0.01)
    assert all(zeros(model, hook.plan))


@pytest.mark.parametrize("ema_decay", [None, 0.8])
@pytest.mark.parametrize("stop", [1, 2])
def test_gradual_pruning_resumes_as_if_never_stopped(stop: int, ema_decay: float | None, tmp_path) -> None:
    config = TuneConfig(epochs=3, lr=0.05, batch_size=16, bf16=False, holdout=0.2, ema_decay=ema_decay)
    pace = prune.Pace(begin=1, end=9, every=3)
    whole, straight = make(), gradual(pace=pace)
    fit(whole, examples(), config, hooks=[straight])
    halted, path = make(), tmp_path / "run.safetensors"

    class Stop(tune.Hook):
        def on_step_begin(self, model, optimizer, *, step, epoch):
            if epoch == stop + 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(halted, examples(), config, hooks=[gradual(pace=pace), Stop()], checkpoint=path)
    again, resumed = make(), gradual(pace=pace)
    history = fit(again, examples(), config, hooks=[resumed], checkpoint=path)
    assert history.resumed_after == stop
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert resumed.plan == straight.plan
    assert resumed.points == straight.points
    assert all(isinstance(point, SparsityPoint) for point in resumed.points)


def test_from_scratch_with_gradients_of_the_moment() -> None:
    model, data = make(), examples()
    batches = [tuple(t[:32] for t in data.tensors)]
    asked: list[int] = []

    def gradients(present: nn.Module) -> dict[str, Tensor]:
        asked.append(1)
        return prune.mean_gradients(present, batches)

    hook = gradual(
        criterion=prune.EntryGradient(), gradients=gradients, pace=prune.Pace(begin=0, end=4, every=2)
    )
    fit(model, data, CONFIG, hooks=[hook])
    assert len(asked) == 3
    assert hook.plan is not None
    assert all(zeros(model, hook.plan))


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"initial": 0.9}, "initial"),
        ({"sparsity": 1.0}, "sparsity"),
        ({"criterion": prune.EntryGradient()}, "gradients"),
        ({"granularity": prune.NofM(), "sparsity": 0.9}, "sparsity"),
    ],
)
def test_bad_arguments(fields: dict[str, object], where: str) -> None:
    with pytest.raises(ValueError, match=where):
        gradual(**fields)


def test_both_hooks_outlast_an_interruption() -> None:
    assert isinstance(prune.Masks(), StatefulHook)
    assert isinstance(gradual(), StatefulHook)
    assert isinstance(prune.GradualChannels(INPUTS, pace=prune.Pace(end=1)), StatefulHook)
    assert not isinstance(tune.Ema(make(), 0.5), StatefulHook)
