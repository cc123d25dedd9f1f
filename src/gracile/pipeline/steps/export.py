"""Write the file that gets deployed, and look at what the runtime makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gracile.records import bytes_text

from ..schema import NAME, Step
from ..verdict import FLOAT_BITS

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from ..state import Bench, Outcome, State


class ExportStep(Step):
    """Export to ONNX, with integer kernels where the model is quantized."""

    after_quantize: ClassVar[bool] = True
    only_writes: ClassVar[bool] = True

    step: Literal["export"] = "export"
    file: str = Field(default="model.onnx", pattern=rf"^{NAME}\.onnx$")
    """Name of the file in the run's folder."""
    target: Literal["onnxruntime-cpu", "openvino-cpu"] = "onnxruntime-cpu"
    """Where the file will run: its kernels are listed and compared, and what is slower there is said."""
    weights: Literal["int8", "uint8"] = "int8"
    """How integer weights are written; uint8 is exact in ONNX Runtime on x86 without VNNI."""

    def run(self, state: State, bench: Bench) -> Outcome:
        """Export, list the kernels that the target runs, compare it with the simulation."""
        from dataclasses import replace

        from gracile import export
        from gracile.targets import TARGETS, IntegerFormat

        from ..state import Outcome

        target = TARGETS[self.target]
        path = bench.out / self.file
        bench.tick("writing", 0, 3)
        artifact = export.onnx(state.current, bench.inputs, path, weights=self.weights)
        bench.tick("kernels", 1, 3)
        kernels = export.kernels(path, runtime=target.runtime)
        bench.tick("parity", 2, 3)
        parity = _compared(state, path, bench, target.runtime)
        size = bytes_text(artifact.size_bytes)
        asked = [row for row in kernels if row["bits"] is not None and row["bits"] < FLOAT_BITS]
        integer = sum(bool(row["integer"]) for row in asked)
        kind = f"{integer} of {len(asked)} quantized layers run in integers" if asked else "float"
        written = IntegerFormat(activation="uint8", weight=self.weights)
        overflowing = _overflowing(state.quantized)
        remarks = target.remarks(_bits(state.quantized), written, overflowing=overflowing)
        if apart := export.first_apart(parity):
            remarks += (f"{target.title} parts from the simulation first at {apart}, by more than one step.",)
        for remark in remarks:
            bench.note(remark)
        return Outcome(
            state=replace(state, deployed=self.file),
            summary=f"{self.file}, {size}, {kind}",
            detail={
                "file": self.file,
                "kernels": list(kernels),
                "parity": list(parity),
                "target": target.title,
                "remarks": list(remarks),
            },
            artifacts=(replace(artifact, name="to deploy"),),
        )


def _compared(state: State, path: Path, bench: Bench, runtime: str) -> tuple[dict[str, Any], ...]:
    """Simulation and file, layer by layer; nothing for a float model."""
    from gracile import export

    if state.quantized is None:
        return ()
    return export.parity(state.quantized, path, bench.images, runtime=runtime)


def _bits(quantized: nn.Module | None) -> list[tuple[int, int]]:
    """Bits of weights and of what is read, of every quantized layer; nothing for a float model."""
    from gracile import quantize

    if not isinstance(quantized, quantize.QuantizedModel):
        return []
    return [(weights, reads) for _, weights, reads in quantize.bits_of(quantized)]


def _overflowing(quantized: nn.Module | None) -> int:
    """Layers in which two products may exceed 16 bits."""
    from gracile import quantize

    return len(quantize.may_overflow(quantized)) if isinstance(quantized, quantize.QuantizedModel) else 0
