"""Data by specification."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from gracile.data import load_data
from gracile.errors import DataError


@pytest.fixture(autouse=True)
def _no_data_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRACILE_DATA", raising=False)


def pictures(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for i in range(6):
        Image.new("RGB", (20, 20)).save(folder / f"{i}_x.png")
    return folder


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "digit",
            r"wanted digits, .*images:FOLDER, audio:FOLDER .*found 'digit'\. Did you mean digits\?",
        ),
        ("cifar-10", r"Did you mean cifar10\?"),
        ("image:photos", r"Did you mean images\?"),
        ("images:", r"Name a folder: images:FOLDER\."),
        ("images", r"Name a folder: images:FOLDER\."),
        ("something", "Choose from digits, mnist, fashion-mnist, cifar10, speech:sad"),
    ],
)
def test_unknown(spec: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_data(spec)
    assert caught.value.exit_code == 2


def test_options_that_do_not_exist(tmp_path: Path) -> None:
    pictures(tmp_path / "photos")
    with pytest.raises(
        DataError, match=r"wanted options among .*resize.*found option rezise\. Did you mean resize\?"
    ):
        load_data("images:photos", tmp_path, rezise=20)
    with pytest.raises(DataError, match="digits: wanted no options, found option size"):
        load_data("digits", size=3)


def test_folders_are_looked_for_in_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path / "root" / "photos")
    assert len(load_data("images:photos", tmp_path / "root", size=16).test) == 4
    assert len(load_data(f"images:{tmp_path}/root/photos", tmp_path / "root", size=16).test) == 4
    monkeypatch.setenv("GRACILE_DATA", str(tmp_path / "root"))
    assert len(load_data("images:photos", size=16).test) == 4
    monkeypatch.delenv("GRACILE_DATA")
    monkeypatch.chdir(tmp_path / "root")
    assert len(load_data("images:photos", size=16).test) == 4


def test_a_root_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DataError, match="--data-root: wanted the folder that holds the data, found no folder"
    ):
        load_data("cifar10", tmp_path / "nothing")
    monkeypatch.setenv("GRACILE_DATA", str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="GRACILE_DATA: wanted the folder that holds the data"):
        load_data("cifar10")


def test_user_function(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from gracile.data import DataBundle\n"
        "def toy(root=None, n=4):\n"
        "    pairs = [(torch.zeros(1, 2, 2), 0)] * n\n"
        "    return DataBundle(name=str(root), train=pairs, test=pairs, classes=2, input_shape=(1, 2, 2))\n"
        "def wrong():\n    return [1]\n"
    )
    data = load_data(f"{tmp_path}/mine.py:toy", tmp_path, n=7)
    assert (data.name, len(data.train)) == (str(tmp_path), 7)
    with pytest.raises(
        DataError, match=r"wanted a function that returns gracile\.data\.DataBundle.*found a list"
    ):
        load_data(f"{tmp_path}/mine.py:wrong")
    with pytest.raises(DataError, match=r"wanted options among n, found option m"):
        load_data(f"{tmp_path}/mine.py:toy", m=7)
    with pytest.raises(DataError, match="wanted an existing Python file"):
        load_data(f"{tmp_path}/none.py:toy")
