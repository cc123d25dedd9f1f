"""``pack`` and ``unpack``: a model into a file and out again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import gracile as library
from gracile import zoo


def test_there_and_back(gracile: Any, tmp_path: Path) -> None:
    file = tmp_path / "demo.gracile"
    ended = gracile("pack", "gracile:demo_net", "--out", file, "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["size_bytes"] == file.stat().st_size
    loaded = library.load(file)
    size = zoo.input_shape("gracile:demo_net")
    assert size is not None
    assert loaded(torch.zeros(2, *size)).shape == (2, 10)
    ended = gracile("unpack", file)
    assert ended.code == 0, ended.err
    tensors = safetensors.torch.load_file(tmp_path / "demo" / "tensors.safetensors")
    held = dict(loaded.named_parameters())
    assert held
    assert all(torch.equal(tensors[name], held[name]) for name in held)


def test_a_damaged_file_is_a_failure_that_says_so(gracile: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.gracile").write_bytes(b"\x89GRACILE" + bytes(40))
    ended = gracile("unpack", tmp_path / "bad.gracile", "--out", tmp_path / "out")
    assert ended.code == 1
    assert "format version" in ended.err
    assert not (tmp_path / "out").exists()


def test_random_weights_are_told(gracile: Any, tmp_path: Path) -> None:
    ended = gracile("pack", "gracile:demo_net", "--out", tmp_path / "a.gracile")
    assert "numbers are random" in ended.err
    ended = gracile("pack", "gracile:demo_net", "--out", tmp_path / "c.gracile", "--json")
    assert json.loads(ended.out)["size_bytes"] > 0
    assert "numbers are random" in ended.err
    file = tmp_path / "w.safetensors"
    safetensors.torch.save_file(zoo.load_model("gracile:demo_net").state_dict(), file)
    ended = gracile("pack", "gracile:demo_net", "--weights", file, "--out", tmp_path / "b.gracile")
    assert ended.code == 0
    assert "numbers are random" not in ended.err
