"""The verdict says what got worse, first, and only what the figures bear out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gracile.pipeline import verdict
from gracile.pipeline.verdict import Verdict
from gracile.records import COMPRESSED, INT8_ONLY, ORIGINAL, Comparison, Headline, Proof, Ratio, label

BEFORE = Headline(
    accuracy=92.6, n=1000, macs=125_000_000, params=853_018, size_bytes=3_400_000, images_per_s=250.0,
    runtime="torch", batch=128,
)  # fmt: skip
AFTER = replace(
    BEFORE, accuracy=92.1, macs=60_000_000, size_bytes=700_000, images_per_s=2300.0, runtime="openvino"
)
NOISE = Comparison(
    difference=-0.5, low=-1.4, high=0.4, p_value=0.3, only_before_right=12, only_after_right=7,
    agreement=97.0, n=1000,
)  # fmt: skip


def ratio(reference: str, value: float, spread: float, *, runtime: str = "ort", batch: int = 128) -> Ratio:
    return Ratio(
        candidate=label(COMPRESSED, runtime), reference=label(reference, runtime), batch=batch,
        ratio=value, low=value - spread, high=value + spread, meaningful=True,
    )  # fmt: skip


def judge(**changes: Any) -> Verdict:
    figures: dict[str, Any] = {
        "before": BEFORE, "after": AFTER, "comparison": NOISE, "ratios": [], "runtimes": ["ort", "openvino"],
    }  # fmt: skip
    return verdict(**figures | changes)


def test_nothing_worse() -> None:
    found = judge()
    assert found.worse == ()
    assert any("within the noise" in sentence for sentence in found.rest)
    assert any("9.2x" in sentence and "OpenVINO" in sentence for sentence in found.rest)
    assert any("shrank from 3.4 MB to 700 kB (0.21x)" in sentence for sentence in found.rest)


def test_accuracy_lost_beyond_noise_is_said_first() -> None:
    found = judge(comparison=replace(NOISE, low=-1.9, high=-0.1))
    assert found.sentences[0].startswith("Accuracy fell from 92.6 to 92.1 % on 1,000 test images")


def test_accuracy_gained_beyond_noise_is_no_bad_news() -> None:
    found = judge(comparison=replace(NOISE, low=0.1, high=1.9))
    assert found.worse == ()
    assert any(sentence.startswith("Accuracy rose") for sentence in found.rest)


def test_slower_than_int8_alone_is_said_first_and_names_the_runtime() -> None:
    found = judge(ratios=[ratio(INT8_ONLY, 0.92, 0.03), ratio(INT8_ONLY, 1.28, 0.05, runtime="openvino")])
    assert len(found.worse) == 1
    assert "In ONNX Runtime the compressed model is slower" in found.worse[0]
    assert "0.92x at batch 128" in found.worse[0]
    assert any("In OpenVINO the compressed model is faster" in s and "1.28x" in s for s in found.rest)


def test_slower_than_the_original() -> None:
    found = judge(ratios=[ratio(ORIGINAL, 0.5, 0.1, batch=1), ratio(ORIGINAL, 2.5, 0.1)])
    assert found.worse == (
        "In ONNX Runtime the compressed model is slower than the original, 0.50x at batch 1 (0.4 to 0.6).",
    )
    assert any("faster than the original" in s and "2.5x at batch 128" in s for s in found.rest)


def test_a_spread_around_one_is_neither() -> None:
    found = judge(ratios=[ratio(ORIGINAL, 1.05, 0.2), ratio(INT8_ONLY, 0.95, 0.2)])
    assert found.worse == ()
    assert sum("does not let one say" in sentence for sentence in found.rest) == 2


def test_headline_slower() -> None:
    found = judge(after=replace(AFTER, images_per_s=125.0))
    assert "0.50x" in found.worse[0]


def test_runtimes_that_disagree() -> None:
    assert judge(accuracies={"ort": 92.1, "openvino": 92.3}).worse == ()
    assert judge(accuracies={"ort": 92.1, "openvino": 90.0}).worse == (
        "Accuracy depends on the runtime: 92.1 % in ONNX Runtime, 90.0 % in OpenVINO.",
    )


def test_a_file_that_grew() -> None:
    assert "The file grew" in judge(after=replace(AFTER, size_bytes=6_800_000)).worse[0]


def test_failed_proofs_come_before_everything() -> None:
    proof = Proof(name="permute layer1", passed=False, error=0.1, tolerance=1e-5)
    found = judge(proofs=[proof, replace(proof, passed=True)], comparison=replace(NOISE, low=-2.0, high=-1.0))
    assert found.sentences[0] == "1 of 2 proofs failed: permute layer1."


def test_layers_that_ran_in_float() -> None:
    rows = [
        {"layer": "conv1", "bits": 8, "integer": True},
        {"layer": "fc", "bits": 8, "integer": False},
        {"layer": "quantize:input", "bits": None, "integer": True},
    ]
    assert judge(kernels=rows).worse == (
        "1 of 2 quantized layers did not run in integers in ONNX Runtime: fc.",
    )
    assert judge(kernels=rows[:1]).worse == ()
    told = judge(kernels=rows[:1], kernels_of="OpenVINO on a processor").rest
    assert "All 1 quantized layers ran in integers in OpenVINO on a processor." in told
    assert judge(kernels=[{"layer": "fc", "bits": 32, "integer": False}]).worse == ()  # float was asked for
