"""The way to the originals, without a network."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from gracile.data import TensorData, load_data
from gracile.errors import DataError, MissingExtra


class FakeCifar:
    """Stands in for torchvision's class: the same arguments and attributes."""

    asked: list[tuple[Path, bool, bool]]

    def __init__(self, root: Path, *, train: bool, download: bool) -> None:
        self.asked.append((root, train, download))
        self.data = np.full((3, 32, 32, 3), 7, np.uint8) if train else np.zeros((2, 32, 32, 3), np.uint8)
        self.targets = [1, 2, 3] if train else [0, 9]


class FakeMnist(FakeCifar):
    def __init__(self, root: Path, *, train: bool, download: bool) -> None:
        super().__init__(root, train=train, download=download)
        self.data = torch.zeros(2, 28, 28, dtype=torch.uint8)
        self.targets = torch.tensor([4, 5])


class Offline:
    def __init__(self, root: Path, *, train: bool, download: bool) -> None:
        raise OSError("Name or service not known")


@pytest.fixture(autouse=True)
def _no_data_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GRACILE_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    FakeCifar.asked = []
    fake_torchvision(monkeypatch, FakeCifar, FakeMnist)


def fake_torchvision(monkeypatch: pytest.MonkeyPatch, cifar: type, mnist: type) -> None:
    module = ModuleType("torchvision.datasets")
    module.CIFAR10, module.MNIST = cifar, mnist  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)


def test_message_and_content(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        data = load_data("cifar10")
    cache = tmp_path / "home" / ".cache" / "gracile"
    assert FakeCifar.asked == [(cache, True, True), (cache, False, True)]
    assert f"downloading the original to {cache}" in caplog.text
    assert "GRACILE_DATA" in caplog.text
    assert isinstance(data.train, TensorData)
    assert data.train.images.shape == (3, 3, 32, 32)
    assert data.train.labels.tolist() == [1, 2, 3]
    assert load_data("mnist").input_shape == (1, 28, 28)


def test_a_copy_of_torchvision_in_the_root_is_used_silently(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    load_data("cifar10", tmp_path)
    assert FakeCifar.asked[0][0] == tmp_path
    assert not caplog.text


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torchvision(monkeypatch, Offline, Offline)
    with pytest.raises(
        DataError, match=r"mnist: .*found Name or service not known\. Name the folder .*--data-root"
    ):
        load_data("mnist")


def test_no_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(MissingExtra, match=r"pip install 'gracile\[vision\]'"):
        load_data("cifar10")
