"""The folding benchmark: what it counts, and what its rows say."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.folding import detail, in_double, left_by_torch, norms_in, randomise_, rows_of
from gracile import graph


def entry(cell: str, **fields: Any) -> dict[str, Any]:
    plain = {"norms": 4, "pairs": 3, "moves": 0, "maps": 0, "left": 1, "error": 1e-6, "torch": 3, "ort": 2}
    return {"cell": cell, **plain, "why": {"bn": "before it stands relu, behind it relu"}, **fields}


def test_norms_are_counted_where_they_run() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)).eval()
    assert norms_in(graph.capture(net, (torch.zeros(1, 3, 4, 4),))) == 2
    assert left_by_torch(net) == 1


def test_statistics_are_random_and_the_same_each_time() -> None:
    nets = [nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)) for _ in range(2)]
    for net in nets:
        randomise_(net)
    assert torch.equal(nets[0][0].running_var, nets[1][0].running_var)
    assert nets[0][0].running_var.std() > 0
    assert nets[0][0].weight.std() > 0


def test_rows_of_a_good_run() -> None:
    rows = {row.id: row for row in rows_of([entry("a"), entry("b", norms=0, pairs=0, left=0, why={})])}
    assert all(row.ok for row in rows.values())
    assert rows["folding.norms_folded"].unit == "of 4"
    assert rows["folding.left_beyond.torch"].value == -2
    assert rows["folding.left_beyond.ort"].n == 1


def test_weights_that_start_at_zero_are_given_values() -> None:
    net = nn.Linear(3, 2)
    nn.init.zeros_(net.weight)
    randomise_(net)
    assert net.weight.any()


def test_an_error_of_float32_is_looked_at_in_float64() -> None:
    one = entry("a", error=2e-4, error_double=1e-6, own_noise=3e-4)
    assert all(row.ok for row in rows_of([one]))
    assert detail(one)["error in float64"] == 1e-6
    model, shifted = nn.Linear(3, 2), nn.Linear(3, 2)
    shifted.load_state_dict(model.state_dict())
    shifted.bias.data += 0.5
    found = in_double(model, shifted, torch.randn(4, 3))
    assert found["error_double"] > 0.1
    assert found["own_noise"] < 1e-6


def test_rows_show_what_is_wrong() -> None:
    bad = entry("a", left=4, error=2e-4)
    rows = {row.id: row.ok for row in rows_of([bad, {"cell": "b", "failed": "no output"}])}
    assert not any(
        rows[name]
        for name in (
            "folding.models", "folding.error.largest", "folding.norms_left_without_reason",
            "folding.models_behind.torch", "folding.models_behind.ort",
        )
    )  # fmt: skip


def test_what_fusing_leaves_counts_beside_other_tools() -> None:
    rows = {
        row.id: row for row in rows_of([entry("a", left=4, left_fused=0, why=dict.fromkeys("abcd", "w"))])
    }
    assert rows["folding.left_beyond.ort"].value == -2
    assert rows["folding.models_behind.ort"].value == 0
    assert rows["folding.norms_left_without_reason"].ok
    assert detail(entry("a", left_fused=0))["left after fusing"] == 0


def test_a_tool_that_fails_is_left_out_of_the_comparison_and_named() -> None:
    one = entry("a")
    del one["torch"]
    one["torch_error"] = "TraceError: no"
    rows = {row.id: row for row in rows_of([one])}
    assert rows["folding.left_beyond.torch"].n == 0
    assert detail(one)["torch fuse leaves"] == "TraceError: no"
    names = {f"bn{i}": "before it stands relu, behind it relu" for i in range(5)}
    assert detail(entry("b", why=names))["why"].startswith("bn0, ... bn4 (5): before")
