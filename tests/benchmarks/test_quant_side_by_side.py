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


def test_rows_hold_the_defaults_against_the_best_of_the_others() -> None:
    lost = {
        ("gracile", 4, 4): 0.5,
        ("gracile, all layers alike", 4, 4): 0.1,
        ("brevitas", 4, 4): 30.0,
        ("brevitas, sums in float", 4, 4): 0.75,
        ("gracile", 4, 8): 0.0,
    }
    found: list[dict[str, Any]] = [
        {"tool": tool, "weight_bits": w, "activation_bits": a, "points_lost": points}
        for (tool, w, a), points in lost.items()
    ]
    rows = side.rows_of(found, 1000)
    assert [(row.id, row.value, row.ok) for row in rows] == [("quant_side_by_side.w4a4.ahead", 0.25, True)]
