"""A checkpoint belongs to one run: hooks and loss count with their settings, addresses do not."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from gracile import prune
from gracile.errors import StorageError
from gracile.tune import CrossEntropy, Distillation, TuneConfig, fit
from gracile.tune.hooks import StatefulHook
from gracile.tune.identity import difference, identity_of, text_of
from gracile.tune.source import Source, make_source

INPUTS = (torch.zeros(1, 3),)
CONFIG = TuneConfig(epochs=1, batch_size=16, bf16=False, holdout=0.0)
PACE = prune.Pace(end=2)


def make() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def examples() -> TensorDataset:
    images = torch.randn(32, 3, generator=torch.Generator().manual_seed(1))
    return TensorDataset(images, (images[:, 0] > 0).long())


@pytest.fixture
def source() -> Source:
    return make_source(examples(), CONFIG, None)


def channels(**fields: Any) -> StatefulHook:
    return prune.GradualChannels(INPUTS, **({"pace": PACE, "leave": ()} | fields))


def masks(**fields: Any) -> StatefulHook:
    return prune.GradualMasks(INPUTS, **({"pace": PACE, "leave": ()} | fields))


def less(**fields: Any) -> StatefulHook:
    return prune.LessIsMore(make(), INPUTS, **fields)


def fixed(sparsity: float) -> StatefulHook:
    return prune.Masks(prune.mask_plan(make(), INPUTS, sparsity=sparsity, leave=()))


CHANGES = [
    (channels, {"budget": prune.PerLayer(ratio=0.25)}, "budget"),
    (channels, {"pace": prune.Pace(end=3)}, "pace"),
    (channels, {"schedule": prune.Linear()}, "schedule"),
    (channels, {"criterion": prune.L2()}, "criterion"),
    (channels, {"leave": ("first",)}, "leave"),
    (channels, {"round_to": 2}, "round_to"),
    (channels, {"seed": 1}, "seed"),
    (masks, {"sparsity": 0.25}, "sparsity"),
    (masks, {"initial": 0.25}, "initial"),
    (masks, {"granularity": prune.Block()}, "granularity"),
    (masks, {"criterion": prune.EntryRandom()}, "criterion"),
    (masks, {"scope": "global"}, "scope"),
    (masks, {"previous": prune.mask_plan(make(), INPUTS)}, "previous"),
    (less, {"threshold": prune.Relative(ratio=0.2)}, "threshold"),
    (less, {"every": 3}, "every"),
    (less, {"stop": 3}, "stop"),
    (less, {"phase": 3}, "phase"),
    (less, {"reversed": True}, "role"),
    (less, {"by_step": True}, "by_step"),
    (less, {"leave": ("0",)}, "leave"),
    (less, {"carry_constants": False}, "carry_constants"),
]


@pytest.mark.parametrize(("kind", "change", "field"), CHANGES, ids=lambda x: x if isinstance(x, str) else "")
def test_settings_of_our_hooks_count(kind: Any, change: dict[str, Any], field: str, source: Source) -> None:
    one, same, other = (
        identity_of(make(), CONFIG, source, CrossEntropy(), [hook])
        for hook in (kind(), kind(), kind(**change))
    )
    assert one == same
    assert {name for name in one if one[name] != other[name]} == {f"{one['hooks'][0]}.{field}"}


def test_masks_count(source: Source) -> None:
    half, most = (identity_of(make(), CONFIG, source, CrossEntropy(), [fixed(s)]) for s in (0.5, 0.75))
    assert half == identity_of(make(), CONFIG, source, CrossEntropy(), [fixed(0.5)])
    assert {name for name in half if half[name] != most[name]} == {"Masks.masks"}
    assert len(half["Masks.masks"]) < 100


def test_another_budget_does_not_give_back_the_old_model(tmp_path: Path) -> None:
    path, quarter, most = tmp_path / "run.safetensors", prune.PerLayer(ratio=0.25), prune.PerLayer(ratio=0.75)
    fit(make(), examples(), CONFIG, hooks=[channels(budget=quarter)], checkpoint=path)
    with pytest.raises(
        StorageError, match=r"differs in GradualChannels\.budget \('PerLayer\(ratio=0\.25\)'\)"
    ):
        fit(make(), examples(), CONFIG, hooks=[channels(budget=most)], checkpoint=path)
    again = make()
    assert (
        fit(again, examples(), CONFIG, hooks=[channels(budget=quarter)], checkpoint=path).resumed_after == 1
    )
    assert again[0].out_features == 6


def test_two_hooks_of_a_kind_are_told_apart(source: Source) -> None:
    found = identity_of(make(), CONFIG, source, CrossEntropy(), [masks(seed=1), channels(), masks(seed=2)])
    assert (found["GradualMasks 1.seed"], found["GradualMasks 2.seed"]) == ("1", "2")
    assert found["hooks"] == ["GradualMasks", "GradualChannels", "GradualMasks"]


def test_the_loss_counts(tmp_path: Path) -> None:
    path, teacher, other = tmp_path / "run.safetensors", nn.Linear(3, 2), nn.Linear(3, 2)
    told = functools.partial(fit, train_data=examples(), config=CONFIG, checkpoint=path)
    told(make(), loss=Distillation(teacher, temperature=2.0))
    assert told(make(), loss=Distillation(teacher, temperature=2.0)).resumed_after == 1
    for loss, named in (
        (Distillation(teacher, temperature=3.0), r"loss\.temperature \('2\.0'\)"),
        (Distillation(teacher, temperature=2.0, weight=0.25), r"loss\.weight \('0\.5'\)"),
        (Distillation(teacher, temperature=2.0, label_smoothing=0.1), r"loss\.label_smoothing \('0\.0'\)"),
        (Distillation(other, temperature=2.0), r"loss\.teacher \('Linear [0-9a-f]{64}'\)"),
        (None, r"loss \('Distillation'\)"),
    ):
        with pytest.raises(StorageError, match=f"differs in {named}"):
            told(make(), loss=loss)


class Lasting:
    """A hook of one's own that says nothing about itself; it has something else called ``identity``."""

    identity = nn.Identity()
    settled = True

    def on_begin(self, model: Any, optimizer: Any, *, average: Any = None) -> None: ...

    def on_step_begin(self, model: Any, optimizer: Any, *, step: int, epoch: int) -> None: ...

    def on_step_end(self, model: Any, optimizer: Any, *, step: int, epoch: int) -> None: ...

    def on_epoch_end(self, model: Any, optimizer: Any, *, step: int, epoch: int) -> None: ...

    def memory(self) -> dict[str, Any]:
        return {}

    def resume(self, memory: dict[str, Any]) -> None: ...


def test_what_says_nothing_counts_by_its_class(tmp_path: Path) -> None:
    def loss(outputs: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, labels)

    path = tmp_path / "run.safetensors"
    for resumed in (0, 1):  # other objects each time, as in another process
        history = fit(make(), examples(), CONFIG, loss=loss, hooks=[Lasting()], checkpoint=path)
        assert history.resumed_after == resumed
    with pytest.raises(StorageError, match=r"differs in hooks \(\['Lasting'\]\)"):
        fit(make(), examples(), CONFIG, loss=loss, checkpoint=path)


def test_hooks_that_write_at_the_start_do_not_change_what_the_run_is(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    fit(make(), examples(), CONFIG, hooks=[fixed(0.5)], checkpoint=path)
    assert fit(make(), examples(), CONFIG, hooks=[fixed(0.5)], checkpoint=path).resumed_after == 1


def test_a_checkpoint_that_says_more_is_told_apart() -> None:
    assert difference({"lr": 0.1, "hook.tau": "1"}, {"lr": 0.1}) == "one that differs in hook.tau ('1')"
    assert difference({}, {"loss": "CrossEntropy"}) == "one that differs in loss (None)"
    assert difference({"lr": 0.1}, {"lr": 0.1, "compile": None}) == "one that differs in compile (None)"


def test_texts_hold_no_addresses_and_are_short() -> None:
    class Plain: ...

    for make_one in (Plain, lambda: functools.partial(make, Plain()), lambda: lambda: 0):
        assert text_of(make_one()) == text_of(make_one())
        assert "0x" not in text_of(make_one())
    long = prune.Absolute(tau={f"layer{i}": 0.1 for i in range(50)})
    assert len(text_of(long)) < 100
    assert text_of(long) != text_of(replace(long, tau={**long.tau, "layer7": 0.2}))  # type: ignore[dict-item]
    close = torch.zeros(5000), torch.zeros(5000).index_fill(0, torch.tensor(2500), 1e-9)
    assert text_of(close[0]) != text_of(close[1])
    bfloat = nn.BatchNorm1d(2).bfloat16()
    bfloat.register_buffer("none", torch.zeros(0))
    assert text_of(bfloat) == text_of(bfloat) != text_of(nn.BatchNorm1d(2))
