"""Bytes on disk, counted against the files."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from gracile.errors import StorageError
from gracile.measure import size_bytes


def test_a_model_in_one_file(linear_onnx: Path) -> None:
    assert size_bytes(linear_onnx) == len(linear_onnx.read_bytes()) > 192 * 10 * 4


def test_weights_beside_the_model_count(linear_onnx: Path, tmp_path: Path) -> None:
    onnx.save(
        onnx.load(linear_onnx),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
    )
    (tmp_path / "other.txt").write_text("not part of the model")
    model, data = (tmp_path / "m.onnx").stat().st_size, (tmp_path / "m.data").stat().st_size
    assert data == 192 * 10 * 4
    assert size_bytes(tmp_path / "m.onnx") == model + data
    (tmp_path / "m.data").unlink()
    with pytest.raises(StorageError, match=r"found no file .*m\.data"):
        size_bytes(tmp_path / "m.onnx")


def test_what_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"wanted a file to measure, found no file .*none\.onnx"):
        size_bytes(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"\xff\xff\xff")
    with pytest.raises(StorageError, match=r"bad\.onnx: wanted an ONNX model"):
        size_bytes(tmp_path / "bad.onnx")
