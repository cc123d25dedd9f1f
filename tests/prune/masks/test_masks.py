"""Masked weights stay exactly zero through every optimizer, in every loop, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from gracile import prune, surgery, tune
from gracile.errors import BadArgument
from gracile.prune.training.gradual_masks import GradualMasks
from gracile.records import MaskPlan, SparsityPoint
from gracile.tune import StatefulHook, TuneConfig, fit

INPUTS = (torch.zeros(1, 3, 6, 6),)
HALF = prune.PerLayer(ratio=0.5)
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


@pytest.mark.parametrize("order", [1, -1], ids=["masks first", "channels first"])
@pytest.mark.parametrize("kind", ["fixed", "gradual"])
def test_channels_that_go_while_masks_are_held_are_no_silent_loss(kind: str, order: int) -> None:
    """The parameters are new objects then, and the masks are of other shapes."""
    model = make()
    plan = prune.mask_plan(model, INPUTS, sparsity=0.5, leave=())
    held = prune.Masks(plan) if kind == "fixed" else gradual(pace=prune.Pace(end=2))
    shrink = prune.GradualChannels(INPUTS, pace=prune.Pace(begin=1, end=1), budget=HALF, leave=())
    optimizer, images = torch.optim.SGD(model.parameters(), lr=0.1), torch.ones(4, 3, 6, 6)
    with pytest.raises(BadArgument, match=r"which its mask has.*hand what narrow_masks gives"):  # noqa: PT012
        for step in range(2):
            for hook in [held, shrink][::order]:
                hook.on_step_begin(model, optimizer, step=step, epoch=1)
            model(images).sum().backward()
            optimizer.step()
            for hook in [held, shrink][::order]:
                hook.on_step_end(model, optimizer, step=step, epoch=1)
    assert model[0].out_channels == 4


def test_channels_that_went_before_are_no_obstacle(tmp_path) -> None:
    """Nor is the order of the hooks when the training resumes."""
    config = TuneConfig(epochs=3, lr=0.05, batch_size=16, bf16=False, holdout=0.2)

    class Stop(tune.Hook):
        def on_step_begin(self, model, optimizer, *, step, epoch):
            if epoch == 3:
                raise KeyboardInterrupt

    def hooks() -> list[tune.Hook]:
        shrink = prune.GradualChannels(INPUTS, pace=prune.Pace(end=0), budget=HALF, leave=())
        return [gradual(pace=prune.Pace(begin=4, end=6)), shrink]

    path, model, kept = tmp_path / "run.safetensors", make(), hooks()
    with pytest.raises(KeyboardInterrupt):
        fit(make(), examples(), config, hooks=[*hooks(), Stop()], checkpoint=path)
    assert fit(model, examples(), config, hooks=kept, checkpoint=path).resumed_after == 2
    assert model[0].out_channels == 4
    assert all(zeros(model, kept[0].plan))
    assert kept[0].plan.found_sparsity == pytest.approx(0.8, abs=0.02)


def test_narrowed_masks_go_on_in_a_loop_of_ones_own() -> None:
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    masks = prune.Masks(prune.mask_plan(model, INPUTS, sparsity=0.5, leave=()))
    images, labels = examples(32).tensors
    for step in range(4):
        if step == 2:
            removal = prune.plan(model, INPUTS, budget=HALF, leave=())
            surgery.apply_(model, removal, optimizer)
            masks.hold(prune.narrow_masks(masks.plan, removal.slices))
        masks.on_step_begin(model, optimizer, step=step, epoch=1)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        masks.on_step_end(model, optimizer, step=step, epoch=1)
        assert all(zeros(model, masks.plan))
    assert model[0].out_channels == 4


def test_parameters_that_are_replaced_stay_masked() -> None:
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    masks = prune.Masks(prune.mask_plan(model, INPUTS, sparsity=0.5, leave=()))
    masks.on_begin(model, optimizer)
    dense = {name: torch.ones_like(tensor) for name, tensor in model.state_dict().items()}
    model.load_state_dict(dense, assign=True)
    masks.on_epoch_end(model, optimizer, step=0, epoch=1)
    assert all(zeros(model, masks.plan))
    model[3] = nn.Identity()
    with pytest.raises(BadArgument, match=r"3\.weight: wanted a parameter.*no such name"):
        masks.on_step_begin(model, optimizer, step=0, epoch=1)


def test_what_was_masked_before_stays_masked() -> None:
    """Also where the growth begins below it, in other granularities, and in layers left alone now."""
    model = make()
    previous = prune.mask_plan(model, INPUTS, sparsity=0.5, leave=())
    hook = gradual(previous=previous, granularity=prune.Kernel(), pace=prune.Pace(end=4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    images, labels = examples(32).tensors
    for step in range(6):
        hook.on_step_begin(model, optimizer, step=step, epoch=1)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        held = {m.param: m.keep for m in hook.plan.masks}
        assert not any((held[m.param] & ~m.keep).any() for m in previous.masks)
        assert all(zeros(model, hook.plan))
    assert hook.points[0].sparsity == pytest.approx(0.5, abs=0.01)
    assert hook.points[-1].sparsity > 0.8


def test_a_hook_that_served_before_begins_anew_with_another_model() -> None:
    hook, first, second = gradual(pace=prune.Pace(begin=1, end=2)), make(), make()
    fit(first, examples(), CONFIG, hooks=[hook])
    with torch.no_grad():
        second[0].weight.copy_(second[0].weight.flip(0))
    seen = []

    class Look(tune.Hook):
        def on_step_begin(self, model, optimizer, *, step, epoch):
            seen.append(bool((model[0].weight == 0).any()))

    fit(second, examples(), CONFIG, hooks=[Look(), hook])
    assert not any(seen[:2])  # nothing is masked before step 1
    assert all(zeros(second, hook.plan))
    assert not all(zeros(first, hook.plan))
    assert [p.step for p in hook.points] == [1, 2]


@pytest.mark.parametrize("what", ["previous", "gradients"])
def test_what_belongs_to_other_shapes_is_refused(what: str) -> None:
    wide, narrow = make(), surgery.apply(make(), prune.plan(make(), INPUTS, budget=HALF, leave=()))
    given = {
        "previous": {"previous": prune.mask_plan(wide, INPUTS, sparsity=0.5)},
        "gradients": {"criterion": prune.EntryGradient(),
                      "gradients": {n: torch.ones_like(p) for n, p in wide.named_parameters()}},
    }  # fmt: skip
    with pytest.raises(
        BadArgument, match=rf"{what}: wanted shape \(3, 4, 3, 3\) for 3\.weight, found \(6, 8"
    ):
        prune.mask_plan(narrow, INPUTS, sparsity=0.5, **given[what])


def test_both_hooks_outlast_an_interruption() -> None:
    assert isinstance(prune.Masks(), StatefulHook)
    assert isinstance(gradual(), StatefulHook)
    assert isinstance(prune.GradualChannels(INPUTS, pace=prune.Pace(end=1)), StatefulHook)
    assert not isinstance(tune.Ema(make(), 0.5), StatefulHook)
