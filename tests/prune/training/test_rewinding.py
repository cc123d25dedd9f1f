"""What survives gets its early values back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from gracile import prune, surgery, tune
from gracile.errors import BadArgument, StorageError, UnsupportedOperation
from gracile.prune.training.fresh import fresh
from gracile.testing import net

INPUTS = (torch.zeros(1, 2, 8, 8),)


def moved(model: nn.Module) -> dict[str, torch.Tensor]:
    """An early state that differs from the present one everywhere."""
    return {n: t + 1 if t.is_floating_point() else t for n, t in model.state_dict().items()}


def test_masked_then_narrowed(residual: nn.Module) -> None:
    early = moved(residual)
    masks = prune.mask_plan(residual, INPUTS, sparsity=0.5)
    sparse = prune.apply_masks(residual, masks)
    removal = prune.plan(sparse, INPUTS, budget=prune.PerLayer(ratio=0.5))
    small = surgery.apply(sparse, removal)
    state = prune.rewound(early, masks, removal)
    small.load_state_dict(state)
    narrow = {m.param: torch.from_numpy(m.keep) for m in prune.narrow_masks(masks, removal.slices).masks}
    cut = surgery.apply(_loaded(residual, early), removal).state_dict()
    for name, tensor in small.state_dict().items():
        keep = narrow.get(name, torch.ones_like(tensor, dtype=torch.bool))
        assert torch.equal(tensor, cut[name].masked_fill(~keep, 0)), name


def _loaded(model: nn.Module, state: dict[str, torch.Tensor]) -> nn.Module:
    model.load_state_dict(state)
    return model


def test_the_early_state_is_not_touched(residual: nn.Module) -> None:
    early = moved(residual)
    copies = {n: t.clone() for n, t in early.items()}
    prune.rewound(early, prune.mask_plan(residual, INPUTS, sparsity=0.9))
    assert all(torch.equal(early[n], copies[n]) for n in early)


def test_a_plan_of_another_model_is_refused(residual: nn.Module, concat: nn.Module) -> None:
    with pytest.raises(BadArgument, match="no such name"):
        prune.rewound(concat.state_dict(), prune.mask_plan(residual, INPUTS, sparsity=0.5))
    removal = prune.plan(residual, INPUTS, budget=prune.PerLayer(ratio=0.5))
    narrow = surgery.apply(residual, removal).state_dict()
    with pytest.raises(BadArgument, match="entries along axis"):
        prune.rewound(narrow, removal)


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_state_of_an_epoch_is_kept(epoch: int, tmp_path: Path) -> None:
    data = torch.utils.data.TensorDataset(torch.randn(32, 4), torch.randint(2, (32,)))
    model, path = nn.Linear(4, 2), tmp_path / "early.safetensors"
    start = {n: t.clone() for n, t in model.state_dict().items()}
    early = prune.Early(epoch, path)
    with pytest.raises(BadArgument, match="no state"):
        _ = early.state
    config = tune.TuneConfig(epochs=2, lr=0.5, batch_size=8, bf16=False, holdout=0)
    tune.fit(model, data, config, hooks=[early])
    assert torch.equal(early.state["weight"], start["weight"]) == (epoch == 0)
    assert not torch.equal(early.state["weight"], model.weight)
    from_disk = prune.Early(epoch, path).state
    assert all(torch.equal(from_disk[n], t) for n, t in early.state.items())
    with pytest.raises(BadArgument, match="epoch"):
        prune.Early(-1)


def test_channels_last_and_tied_weights_are_kept_on_disk(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    model.to(memory_format=torch.channels_last)
    model[2].weight = model[1].weight
    early = prune.Early(0, tmp_path / "early.safetensors")
    early.on_step_begin(model, torch.optim.SGD(model.parameters()), step=0, epoch=1)
    from_disk = prune.Early(0, early.path).state
    assert from_disk.keys() == model.state_dict().keys()
    assert all(torch.equal(from_disk[n], t) for n, t in model.state_dict().items())


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "early.safetensors"
    path.write_bytes(b"half")
    with pytest.raises(StorageError, match=r"early\.safetensors: wanted a state that Early kept"):
        _ = prune.Early(0, path).state


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: object, target: Path) -> None:
        raise SafetensorError("No space left")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    net = nn.Linear(2, 2)
    early = prune.Early(0, tmp_path / "early.safetensors")
    with pytest.raises(StorageError, match="No space left"):
        early.on_step_begin(net, torch.optim.SGD(net.parameters()), step=0, epoch=1)


@pytest.mark.parametrize("carry", ["nearest", "exact", False])
@pytest.mark.parametrize("choice", ["selective", "zero"])
def test_branches_with_channels_of_their_own(residual: nn.Module, choice: str, carry: str | bool) -> None:
    """What the plan hangs on the model is in the state too, and holds no constants."""
    early = moved(residual)
    removal = prune.plan(residual, INPUTS, budget=prune.PerLayer(ratio=0.5), trunk=choice)
    assert removal.rewires
    small = prune.apply(residual, removal, inputs=INPUTS, carry_constants=carry)
    small.load_state_dict(prune.rewound(early, surgery.with_parts(removal, small)))
    cut = surgery.apply(_loaded(residual, early), removal)
    images = torch.randn(4, 2, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(small(images), cut(images))
    cut.load_state_dict(prune.rewound(early, removal))


def test_parts_are_narrowed_by_later_plans(residual: nn.Module) -> None:
    early, model, plans = moved(residual), residual, []
    for _ in range(2):
        plans.append(prune.plan(model, INPUTS, budget=prune.PerLayer(ratio=0.34), trunk="selective"))
        model = surgery.apply(model, plans[-1])
    model.load_state_dict(prune.rewound(early, *plans))
    with pytest.raises(BadArgument, match="the state of the model before it got this part"):
        prune.rewound(surgery.apply(residual, plans[0]).state_dict(), plans[1])


@pytest.mark.parametrize("name", ["residual", "grouped"])
def test_fresh_weights_for_the_same_architecture(name: str) -> None:
    model, inputs = net(name)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    removal = prune.plan(model, inputs, budget=prune.Macs(fraction_kept=0.6), leave=("last",))
    small = surgery.apply(model, removal)
    new = fresh(small, seed=3)
    assert repr(new) == repr(small)
    again, other = fresh(small, seed=3), fresh(small, seed=4)
    for path, p in new.named_parameters():
        assert p.shape == small.get_parameter(path).shape
        assert torch.equal(p, again.get_parameter(path))
        if p.ndim > 1:
            assert not torch.equal(p, small.get_parameter(path))
            assert not torch.equal(p, other.get_parameter(path))
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    for m in new.modules():
        if isinstance(m, nn.BatchNorm2d):
            assert torch.equal(m.running_var, torch.ones_like(m.running_var))


def test_a_module_that_cannot_be_reset_is_named() -> None:
    model, _ = net("attention")  # a class token and positions, and no way to draw them anew
    with pytest.raises(UnsupportedOperation, match="reset_parameters"):
        fresh(model)
