"""What survives gets its early values back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from gracile import prune, surgery, tune
from gracile.errors import BadArgument, UnsupportedOperation
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
