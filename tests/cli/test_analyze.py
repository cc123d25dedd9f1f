"""``analyze``: noise, accumulators and curves of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch

from gracile.zoo import demo_net

MODEL = ("gracile:demo_net", "--data", "digits", "--option", "width=8", "--images", "16")


def test_json_holds_noise_accumulators_and_curves(gracile: Any, tmp_path: Path) -> None:
    cache = tmp_path / "curves.json"
    found = json.loads(
        gracile("analyze", *MODEL, "--weight-bits", "4", "--curves", "--cache", cache, "--json").out
    )
    assert {edge["layer"] for edge in found["noise"]["edges"]} >= {"stem", "block1.conv1", "linear"}
    assert {edge["weight_bits"] for edge in found["noise"]["edges"]} == {None, 4, 8}  # ends have 8
    assert all(layer["seen_bits"] <= layer["worst_bits"] for layer in found["accumulators"]["layers"])
    assert found["sensitivity"]["images"] == 16
    assert json.loads(cache.read_text())["key"] == found["sensitivity"]["key"]


def test_tables_for_people(gracile: Any) -> None:
    out = gracile("analyze", *MODEL).out
    for text in ("dB on 16 images", "block2.conv2", "accumulated dB", "bits in an accumulator"):
        assert text in out
    assert gracile("analyze", "gracile:demo_net").code == 2  # --data is needed


def test_weights_are_looked_for_under_the_data_root(gracile: Any, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    safetensors.torch.save_file(demo_net(width=8).state_dict(), tmp_path / "weights/demo.safetensors")
    named = ("--weights", "weights/demo.safetensors")
    ended = gracile("analyze", *MODEL, *named, "--data-root", tmp_path, "--json")
    assert ended.code == 0, ended.err
    absent = gracile("analyze", *MODEL, *named, "--json")
    assert absent.code == 2
    assert "--data-root" in absent.err
