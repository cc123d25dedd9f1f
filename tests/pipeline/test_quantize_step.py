"""The quantize step looks at layers and raises bits; the export step says what its target makes of them."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gracile.data import DataBundle, load_data
from gracile.errors import BudgetError, DataError
from gracile.pipeline.state import Bench, State
from gracile.pipeline.steps import ExportStep, QuantizeStep
from gracile.records import BitTrail, QuantNoise, QuantSensitivity, from_plain


@pytest.fixture(scope="module")
def digits() -> DataBundle:
    return load_data("digits", None)


@pytest.fixture(scope="module")
def net(digits: DataBundle) -> nn.Module:
    """Two convolutions, trained for a moment."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    images, labels = digits.labelled(1024, seed=9)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval()


FEW = {"weight_bits": 2, "activation_bits": 2, "ends": {}, "rounding": "nearest", "calibration": 64}


def test_bits_are_raised_until_the_accuracy_is_kept(net: nn.Module, bench: Bench) -> None:
    step = QuantizeStep.model_validate({**FEW, "at_most_lost": 3.0, "judged": 256, "evaluations": 6})
    outcome = step.run(State(model=net), bench)
    trail = from_plain(BitTrail, outcome.detail["trail"])
    assert trail.kept.accuracy >= trail.reference - 3
    assert len(trail.tries) <= 5
    assert trail.kept.weight_bits < 8
    plan = outcome.state.quant
    assert plan is not None
    assert {w.layer: w.bits for w in plan.weights} == {name: bits for name, bits, _ in trail.layers}
    assert "points lost on 256 held-out training images" in outcome.summary
    assert (bench.out / "bit_sensitivity.json").is_file()


def test_what_cannot_be_kept_is_an_error(net: nn.Module, bench: Bench) -> None:
    step = QuantizeStep.model_validate({**FEW, "at_most_lost": 0.0, "judged": 99999, "calibration": 1437})
    with pytest.raises(DataError, match="beside those that calibrate"):
        step.run(State(model=net), bench)
    uneven = copy.deepcopy(net)  # the same function, with one channel that takes the whole range
    with torch.no_grad():
        for parameter in (uneven.get_parameter("0.weight"), uneven.get_parameter("0.bias")):
            parameter[0] *= 1e4
        uneven.get_parameter("2.weight")[:, 0] *= 1e-4
    less = QuantizeStep.model_validate({**FEW, "at_most_lost": 5.0, "judged": 256})
    with pytest.raises(BudgetError, match="with 8 bits everywhere"):
        less.run(State(model=uneven), bench)


def test_the_report_gets_noise_and_curves(net: nn.Module, bench: Bench) -> None:
    plain = QuantizeStep.model_validate({"calibration": 64, "rounding": "nearest"})
    outcome = plain.run(State(model=net), bench)
    assert from_plain(QuantNoise, outcome.detail["noise"]).output_db > 20
    assert "bit_curves" not in outcome.detail
    curves = plain.model_copy(update={"sensitivity": True}).run(State(model=net), bench).detail["bit_curves"]
    assert [c.name for c in from_plain(QuantSensitivity, curves).weights] == ["0", "2", "5"]


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu"])
def test_an_export_says_what_its_target_makes_of_few_bits(target: str, net: nn.Module, bench: Bench) -> None:
    if target == "openvino-cpu":
        pytest.importorskip("openvino")
    notes: list[str] = []
    heard = Bench(**{**vars(bench), "note": notes.append})
    few = {"calibration": 64, "rounding": "nearest", "weight_bits": 4, "reduce_range": True}
    state = QuantizeStep.model_validate(few).run(State(model=net), heard).state
    outcome = ExportStep.model_validate({"target": target}).run(state, heard)
    assert "3 of 3 quantized layers run in integers" in outcome.summary
    assert len(outcome.detail["parity"]) == 4
    (remark,) = outcome.detail["remarks"]
    assert "the fewer bits of 1 of 3 layers make this file neither faster nor smaller" in remark
    assert notes == [remark]


def test_an_export_says_where_its_file_may_overflow(net: nn.Module, bench: Bench) -> None:
    full, half = (
        QuantizeStep.model_validate({"calibration": 64, "reduce_range": value}).run(State(model=net), bench)
        for value in (False, True)
    )
    assert (full.detail["reduced"], half.detail["reduced"]) == (0, 3)
    assert full.summary == "3 layers at W8A8, 0 left in float"
    assert half.summary == "3 layers at W8A8 (3 in half the range of 8 bits), 0 left in float"
    export = ExportStep.model_validate({})
    (remark,) = export.run(full.state, bench).detail["remarks"]
    assert "may overflow in " in remark
    assert export.run(half.state, bench).detail["remarks"] == []
    unsigned = ExportStep.model_validate({"weights": "uint8"}).run(full.state, bench)
    assert unsigned.detail["remarks"] == []
    assert "3 of 3 quantized layers run in integers" in unsigned.summary
