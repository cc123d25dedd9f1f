"""Cells of few bits: names, bars, kept cells, images held out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from benchmarks import ptq
from benchmarks.int8 import Case
from gracile import quantize
from gracile.errors import UsageError
from gracile.observe.batches import DatasetBatches


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    ptq.arguments(parser)
    found = parser.parse_args(words)
    found.data_root = None
    return found


def tiny(model: str, arguments: argparse.Namespace) -> Case:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    images = torch.randn(24, 3, 8, 8)
    with torch.no_grad():
        labels = network(images).argmax(1)
    test: Any = TensorDataset(images, labels)
    return Case(name=model, model=network.eval(), folds=((images, DatasetBatches(test)),), batch=8)


def test_a_cell_is_quantized_exported_and_tested(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ptq, "case_of", tiny)
    words = ["--models", "resnet56", "--cells", "W4A8", "--iterations", "3", "--keep", str(tmp_path / "kept")]
    rows, details = ptq.run(parsed(*words))
    assert [(r.id, r.must, r.n) for r in rows] == [("ptq.resnet56.W4A8.accuracy", ">= 92.2", 24)]
    assert details[0]["float"] == 100.0
    assert details[0]["every_layer_in_integers"]
    assert rows[0].spread is not None
    assert rows[0].spread[0] <= rows[0].value <= rows[0].spread[1]

    def again(*args: Any) -> dict[str, Any]:
        raise AssertionError("the kept cell is not done again")

    monkeypatch.setattr(ptq, "quantized", again)
    assert ptq.run(parsed(*words))[1] == details


def test_bars_are_those_of_accuracy_or_of_points_lost() -> None:
    entry = {
        "bits": "W4A4",
        "float": 92.0,
        "accuracy": 90.0,
        "difference": -2.0,
        "low": -4.0,
        "high": -1.0,
        "n": 9,
    }
    accuracy = ptq.row({"model": "resnet56", **entry}, bars=True)
    lost = ptq.row({"model": "efficientnet_lite0", **entry}, bars=True)
    assert (accuracy.value, accuracy.spread, accuracy.must) == (90.0, (88.0, 91.0), ">= 91")
    assert (lost.value, lost.spread, lost.must) == (2.0, (1.0, 4.0), "<= 8")
    assert ptq.row({"model": "resnet56", **entry}, bars=False).must == ""


def test_the_scheme_is_the_default_with_what_was_asked_for() -> None:
    scheme = ptq.scheme_of("W3A6", parsed("--images", "8"), lambda done, of: None)
    assert (scheme.weight_bits, scheme.activation_bits) == (3, 6)
    assert scheme.rounding == quantize.Blocks(images=8)
    assert ptq.scheme_of("W8A8", parsed(), lambda done, of: None) == quantize.W8A8
    nearest = ptq.scheme_of("W4A4", parsed("--rounding", "nearest"), lambda done, of: None)
    assert nearest.rounding == quantize.Nearest()


@pytest.mark.parametrize("name", ["W1A8", "W4", "w4a4"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="W4A8 and the like"):
        ptq.parted(name)


def test_images_held_out_are_turned_the_same_way_every_time() -> None:
    images = torch.randn(4, 3, 8, 8)
    assert torch.allclose(ptq.turned(images, 0.0), images, atol=1e-5)
    assert torch.equal(ptq.turned(images, 25.0), ptq.turned(images, 25.0))
    assert not torch.allclose(ptq.turned(images, 25.0), images, atol=0.1)


def test_more_calibration_images_are_the_same_every_time() -> None:
    images = torch.rand(3, 3, 8, 8)
    before = torch.get_rng_state()
    found = ptq.varied(images, mirror=True, crops=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found[:6], torch.cat([images, images.flip(-1)]))
    assert found.shape == (12, 3, 8, 8)
    assert not torch.equal(found[6:9], found[9:])
    assert torch.equal(found, ptq.varied(images, mirror=True, crops=2))


def test_in_more_folds_every_picture_is_tested_once_by_what_did_not_see_it() -> None:
    images, labels = torch.arange(10.0)[:, None], torch.arange(10)
    halves = [TensorDataset(images[i::2], labels[i::2]) for i in (0, 1)]
    folds = tuple((images[1 - i :: 2], DatasetBatches(half)) for i, half in enumerate(halves))
    case = ptq.refolded(Case(name="x", model=nn.Identity(), folds=folds, batch=1), 4)
    seen = []
    for calibration, test in case.folds:
        ((tested, wanted),) = test.batches(64)
        assert torch.equal(tested[:, 0].long(), wanted)
        assert sorted([*calibration[:, 0].tolist(), *tested[:, 0].tolist()]) == list(range(10))
        seen += tested[:, 0].tolist()
    assert sorted(seen) == list(range(10))
    for count in (0, 1, 11):
        with pytest.raises(UsageError, match="--folds: wanted 2 to 10"):
            ptq.refolded(case, count)
    for words in (["--models", "resnet56", "--folds", "4"], ["--crops", "-1"]):
        with pytest.raises(UsageError, match=words[-2]):
            ptq.run(parsed(*words))
