"""The comparison of quantizers: what is absent is named, and peers get the same function."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import quant_side_by_side as side
from gracile.zoo.cifar_resnet import CifarResNet


def test_a_tool_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert side.missing("gracile") == side.missing("onnxruntime") == ""
    monkeypatch.setattr(side, "find_spec", lambda name: None if name == "nncf" else object())
    assert side.missing("nncf") == "nncf"
    assert side.missing("brevitas") == ""


def test_what_brevitas_gets_is_the_same_function() -> None:
    torch.manual_seed(0)
    model = CifarResNet(8).eval()
    traced = side._traced(model)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(traced(x), model(x))
    assert not any(node.kwargs for node in traced.graph.nodes if node.target == "mean")


def test_rows_have_a_name_for_each_tool_and_width() -> None:
    figures: dict[str, Any] = {"points_lost": 0.2, "low": -0.1, "high": 0.5}
    rows = [
        side.row_of({"tool": tool, "weight_bits": w, "activation_bits": a, **figures}, 1000)
        for tool, (_, widths) in side.TOOLS.items()
        for w, a in widths
    ]
    ids = [row.id for row in rows]
    assert len(set(ids)) == len(ids) == 11
    assert "quant_side_by_side.gracile_all_layers_alike.w4a4.points_lost" in ids
    assert rows[0].spread == (-0.1, 0.5)
