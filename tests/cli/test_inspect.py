"""``inspect``: layers, groups and what can't be touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def test_json_holds_layers_groups_and_costs(gracile: Any) -> None:
    found = json.loads(gracile("inspect", "gracile:demo_net", "--option", "width=8", "--json").out)
    assert found["input"] == [1, 8, 8]
    layers = {layer["name"]: layer for layer in found["cost"]["layers"]}
    assert layers["stem"]["macs"] == 8 * 8 * 8 * 9
    assert sum(layer["macs"] for layer in layers.values()) == found["cost"]["macs"]
    assert {group["name"]: group["units"] for group in found["groups"]}["block1.conv1"] == 8
    assert any(skipped["where"] == "linear" for skipped in found["frozen"])


def test_tables_for_people(gracile: Any) -> None:
    out = gracile("inspect", "gracile:demo_net").out
    for text in ("block2.shortcut.0", "4 groups of channels", "1 places that can't be touched", "linear:"):
        assert text in out


def test_a_model_that_does_not_tell_its_input(gracile: Any, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef build(): return nn.Sequential(nn.Linear(4, 2))"
    )
    ended = gracile("inspect", f"{tmp_path}/net.py:build")
    assert ended.code == 2
    assert "--input" in ended.err
    assert gracile("inspect", f"{tmp_path}/net.py:build", "--input", "4").code == 0


def test_an_input_that_is_no_shape(gracile: Any) -> None:
    assert gracile("inspect", "gracile:demo_net", "--input", "1,a").code == 2
    assert gracile("inspect", "gracile:demo_net", "--option", "width").code == 2


def test_an_option_that_is_not_yaml(gracile: Any) -> None:
    ended = gracile("inspect", "gracile:demo_net", "--option", "width=[8")
    assert ended.code == 2
    assert "--option width=[8" in ended.err
    assert "a value in YAML" in ended.err
