"""A run's record with everything a report can show."""

from __future__ import annotations

import math

import pytest

from gracile.records import Artifact, Comparison, Headline, Proof, Ratio, Run, Skipped, Speed, StepRecord


def speed(model: str, runtime: str, batch: int, images: float) -> Speed:
    latency = 1000 * batch / images
    return Speed(
        model=model,
        runtime=runtime,
        batch=batch,
        runs=15,
        images_per_s=images,
        images_per_s_low=0.96 * images,
        images_per_s_high=1.05 * images,
        latency_ms=latency,
        latency_ms_low=0.95 * latency,
        latency_ms_high=1.04 * latency,
    )


def epoch(number: int) -> dict[str, float | int | None]:
    return {
        "epoch": number,
        "train_loss": 0.4 * math.exp(-number / 2),
        "train_accuracy": 97 - 8 / number,
        "holdout_loss": 0.35 * math.exp(-number / 3),
        "holdout_accuracy": 96 - 5 / number,
    }


SPEEDS = {
    ("original", "torch"): 252.0,
    ("compressed, float", "torch"): 331.0,
    ("original", "ort"): 740.0,
    ("int8 only", "ort"): 1480.0,
    ("compressed", "ort"): 1361.0,
    ("original", "openvino"): 870.0,
    ("int8 only", "openvino"): 1930.0,
    ("compressed", "openvino"): 2480.0,
}


@pytest.fixture
def run() -> Run:
    names = [
        "conv1",
        *(f"layer{s}.{b}.conv{c}" for s in (1, 2, 3) for b in range(3) for c in (1, 2)),
        "linear",
    ]
    widths = {name: 16 * 2 ** (int(name[5]) - 1) if name.startswith("layer") else 16 for name in names}
    return Run(
        name="resnet20-cifar10",
        recipe={
            "name": "resnet20-cifar10",
            "description": "Half the multiply-adds, then int8.",
            "model": {"spec": "gracile:resnet20", "options": {}},
            "data": {"spec": "cifar10"},
            "steps": [{"step": "prune", "budget": {"macs": 0.5}}, {"step": "export"}],
        },
        versions={"gracile": "0.1.0", "python": "3.11.7", "torch": "2.14.1", "onnxruntime": "1.31.1"},
        hardware={
            "processor": "Some CPU",
            "cores": 2,
            "threads": 2,
            "memory_gb": 15.6,
            "accelerator": "none",
        },
        seed=0,
        before=Headline(
            accuracy=92.6,
            n=1000,
            macs=40_800_000,
            params=269_722,
            size_bytes=1_090_000,
            images_per_s=252.0,
            runtime="torch",
            batch=128,
        ),
        after=Headline(
            accuracy=91.9,
            n=1000,
            macs=19_400_000,
            params=131_000,
            size_bytes=197_000,
            images_per_s=2480.0,
            runtime="openvino",
            batch=128,
        ),
        comparison=Comparison(
            difference=-0.7,
            low=-1.6,
            high=0.2,
            p_value=0.17,
            only_before_right=16,
            only_after_right=9,
            agreement=96.2,
            n=1000,
        ),
        steps=(
            StepRecord(
                name="prune",
                kind="prune",
                seconds=12.3,
                accuracy=89.7,
                detail={
                    "summary": "l1, multiply-adds 40.8 M -> 19.4 M",
                    "widths": [
                        {
                            "round_to": 0,
                            "runtime": "openvino",
                            "batch": 32,
                            "macs_kept": 1.0,
                            "images_per_s": 1900.0,
                            "low": 1850.0,
                            "high": 1960.0,
                            "chosen": False,
                            "why": "for comparison",
                        },
                        {
                            "round_to": 8,
                            "runtime": "openvino",
                            "batch": 32,
                            "macs_kept": 0.47,
                            "images_per_s": 2400.0,
                            "low": 2310.0,
                            "high": 2480.0,
                            "chosen": True,
                            "why": "",
                        },
                        {"round_to": 16, "why": "the budget cannot be met"}
                        | dict.fromkeys(("runtime", "batch", "macs_kept", "images_per_s", "low", "high"))
                        | {"chosen": False},
                    ],
                },
            ),
            StepRecord(
                name="tune", kind="tune", seconds=185.0, accuracy=92.1, detail={"summary": "3 epochs"}
            ),
            StepRecord(name="export", kind="export", seconds=1.9, detail={"summary": "model.onnx, 197 kB"}),
        ),
        artifacts=(Artifact(name="model", path="model.onnx", sha256="ab" * 32, size_bytes=197_000),),
        skips=(
            Skipped("conv1", "left alone: first", "resnet.py:88: x = F.relu(self.bn1(self.conv1(x)))"),
            Skipped("<script>alert(1)</script>", "a name that must be escaped"),
        ),
        proofs=(
            Proof(name="keep everything", passed=True, error=0.0, tolerance=1e-6),
            Proof(name="zero, then remove", passed=True, error=3e-7, tolerance=1e-5, effect=0.4),
        ),
        speeds=tuple(
            speed(m, r, b, v * (0.4 if b == 1 else 1)) for b in (1, 128) for (m, r), v in SPEEDS.items()
        ),
        ratios=(
            Ratio(
                candidate="compressed in ONNX Runtime",
                reference="int8 only in ONNX Runtime",
                batch=128,
                ratio=0.92,
                low=0.89,
                high=0.95,
                meaningful=True,
            ),
            Ratio(
                candidate="compressed in OpenVINO",
                reference="original in OpenVINO",
                batch=128,
                ratio=2.85,
                low=2.7,
                high=3.0,
                meaningful=True,
            ),
        ),
        verdict=(
            "In ONNX Runtime the compressed model is slower than the original only quantized to int8, 0.92x "
            "at batch 128 (0.89 to 0.95): there, making it narrower did not pay.",
            "Accuracy went from 92.6 to 91.9 % on 1,000 test images, within the noise.",
            "2,480 images/s in OpenVINO against 252 of the original in PyTorch, both at batch 128: 9.8x.",
        ),
        verdict_worse=1,
        plan={},
        kernels=tuple(
            {
                "layer": name,
                "bits": 8,
                "op": "QLinearConv",
                "kernel": "QLinearConv (integer)",
                "integer": name != "linear",
            }
            for name in names
        ),
        parity=({"layer": "conv1", "max_steps": 1, "mean_steps": 0.013},),
        curves=({"step": "tune", "epochs": [epoch(n) for n in range(1, 7)]},),
        layers=tuple(
            {
                "name": name,
                "kind": "conv2d",
                "width_before": widths[name],
                "width_after": widths[name] // 2
                if name.endswith("conv1") and name != "conv1"
                else widths[name],
                "macs_before": 2_359_296,
                "macs_after": 1_179_648,
                "weight_bits": 8,
            }
            for name in names
        ),
        notes=("OpenVINO ran with 2 threads.",),
        created="2026-11-22 05:40",
    )
