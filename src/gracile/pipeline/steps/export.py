"""Write the file that gets deployed, and look at what the runtime makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gracile.records import bytes_text

from ..schema import Step
from ..verdict import FLOAT_BITS

if TYPE_CHECKING:
    from ..state import Bench, Outcome, State


class ExportStep(Step):
    """Export to ONNX, with integer kernels where the model is quantized."""

    after_quantize: ClassVar[bool] = True

    step: Literal["export"] = "export"
    file: str = Field(default="model.onnx", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.onnx$")
    """Name of the file in the run's folder."""
    dynamic_batch: bool = True
    """Let the batch size be chosen at run time."""

    def run(self, state: State, bench: Bench) -> Outcome:
        """Export, list the kernels that ONNX Runtime runs, compare it with the simulation."""
        from dataclasses import replace

        from gracile import export

        from ..state import Outcome

        path = bench.out / self.file
        bench.tick("writing", 0, 3)
        artifact = export.onnx(state.current, bench.inputs, path, dynamic_batch=self.dynamic_batch)
        bench.tick("kernels", 1, 3)
        kernels = export.kernels(path)
        bench.tick("parity", 2, 3)
        parity = () if state.quantized is None else export.parity(state.quantized, path, bench.images)
        size = bytes_text(artifact.size_bytes)
        asked = [row for row in kernels if row["bits"] is not None and row["bits"] < FLOAT_BITS]
        integer = sum(bool(row["integer"]) for row in asked)
        kind = f"{integer} of {len(asked)} quantized layers run in integers" if asked else "float"
        return Outcome(
            state=replace(state, deployed=self.file),
            summary=f"{self.file}, {size}, {kind}",
            detail={"kernels": list(kernels), "parity": list(parity)},
            artifacts=(replace(artifact, name="to deploy", path=self.file),),
        )
