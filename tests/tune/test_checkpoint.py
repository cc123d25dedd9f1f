"""A checkpoint holds everything, is whole or not there, and contains no pickle."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from gracile.errors import StorageError
from gracile.tune import OPTIMIZERS, TuneConfig, load_checkpoint, make_optimizer, save_checkpoint
from gracile.tune.checkpoint import Checkpoint, copy_state


def _trained(name: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = make_optimizer(model, TuneConfig(optimizer=name, decay_norms=False))
    for _ in range(3):
        model(torch.randn(8, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_an_optimizer_goes_on_exactly(tmp_path: Path, name: str) -> None:
    model, optimizer = _trained(name)
    state = Checkpoint(model=copy_state(model), optimizer=optimizer.state_dict(), facts={"epoch": 3})
    save_checkpoint(tmp_path / "a.safetensors", state)
    back = load_checkpoint(tmp_path / "a.safetensors")
    assert back.facts == {"epoch": 3}
    other, other_optimizer = _trained(name)
    other.load_state_dict(back.model)
    other_optimizer.load_state_dict(back.optimizer)
    images = torch.randn(8, 3)
    for module, stepper in ((model, optimizer), (other, other_optimizer)):
        module(images).square().sum().backward()
        stepper.step()
    pairs = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_best_and_average_are_kept_apart(tmp_path: Path) -> None:
    names = {part: {"w": torch.full((2,), float(i))} for i, part in enumerate(("model", "best", "ema"))}
    empty: dict[str, Any] = {"state": {}, "param_groups": []}
    save_checkpoint(tmp_path / "a.safetensors", Checkpoint(optimizer=empty, **names))
    back = load_checkpoint(tmp_path / "a.safetensors")
    assert [getattr(back, part)["w"][0].item() for part in names] == [0.0, 1.0, 2.0]


def test_tied_weights_are_no_obstacle(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    state = Checkpoint(model=model.state_dict(), optimizer={"state": {}, "param_groups": []})
    save_checkpoint(tmp_path / "a.safetensors", state)
    assert torch.equal(load_checkpoint(tmp_path / "a.safetensors").model["1.weight"], model[0].weight)


@pytest.mark.parametrize("cut", [0, 4, 100, -5])
def test_a_damaged_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.safetensors"
    model, optimizer = _trained("adam")
    save_checkpoint(path, Checkpoint(model=copy_state(model), optimizer=optimizer.state_dict()))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(StorageError, match="Delete it to start the run anew"):
        load_checkpoint(path)


def test_another_safetensors_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(StorageError, match="a checkpoint of a fine-tuning run"):
        load_checkpoint(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    "failure", [SafetensorError("No space left"), OSError(errno.ENOSPC, "No space left")]
)
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    path = tmp_path / "a.safetensors"
    model, optimizer = _trained("sgd")
    state = Checkpoint(model=copy_state(model), optimizer=optimizer.state_dict())
    save_checkpoint(path, state)
    before = path.read_bytes()

    def full(tensors: object, target: Path, metadata: object) -> None:
        target.write_bytes(b"half")
        raise failure

    monkeypatch.setattr("gracile.tune.checkpoint.save_file", full)
    with pytest.raises(StorageError, match="No space left"):
        save_checkpoint(path, state)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
