"""A network is trained once, and an interrupted training goes on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from benchmarks.trained import trained_once
from gracile import tune

CONFIG = tune.TuneConfig(epochs=2, lr=0.01, batch_size=8, bf16=False)


@pytest.fixture
def examples() -> TensorDataset:
    return TensorDataset(torch.randn(32, 1, 8, 8), torch.arange(32) % 10)


def test_it_is_trained_once(examples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "net.safetensors"
    first = trained_once(file, "gracile:demo_net", examples, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]
    monkeypatch.setattr(tune, "fit", lambda *args, **options: pytest.fail("trained again"))
    second = trained_once(file, "gracile:demo_net", examples, CONFIG)
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_an_interrupted_training_goes_on(
    examples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained_once(tmp_path / "whole.safetensors", "gracile:demo_net", examples, CONFIG)
    fit = tune.fit

    class Stop(Exception):
        pass

    def stop(epoch: Any) -> None:
        raise Stop

    monkeypatch.setattr(tune, "fit", lambda *args, **options: fit(*args, **options, on_epoch=stop))
    file = tmp_path / "cut.safetensors"
    with pytest.raises(Stop):
        trained_once(file, "gracile:demo_net", examples, CONFIG)
    assert not file.exists()
    monkeypatch.setattr(tune, "fit", fit)
    cut = trained_once(file, "gracile:demo_net", examples, CONFIG)
    for one, other in zip(whole.state_dict().values(), cut.state_dict().values(), strict=True):
        assert torch.equal(one, other)
