"""Write the archive: the model in the fewest bytes that give back every bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gracile.records import bytes_text

from ..schema import NAME, Step

if TYPE_CHECKING:
    from ..state import Bench, Outcome, State


class PackStep(Step):
    """Write an archive that ``gracile.load`` gives back exactly."""

    after_quantize: ClassVar[bool] = True
    only_writes: ClassVar[bool] = True

    step: Literal["pack"] = "pack"
    file: str = Field(default="model.gracile", pattern=rf"^{NAME}\.gracile$")
    """Name of the file in the run's folder."""

    def run(self, state: State, bench: Bench) -> Outcome:
        """Pack, read the file again, and compare its outputs with the model's, bit by bit."""
        from dataclasses import replace

        import torch

        from gracile import pack
        from gracile.observe import evaluating
        from gracile.records import Proof

        from ..state import Outcome

        path = bench.out / self.file
        artifact = pack.save(state.current, path, bench.inputs)
        loaded = pack.load(path)
        with torch.no_grad(), evaluating(state.current):
            found, wanted = loaded(bench.images), state.current(bench.images)
        off = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))
        same = torch.equal(found, wanted)
        proof = Proof(name="the archive gives the same bits", passed=same, error=off, tolerance=0.0)
        return Outcome(
            state=state,
            summary=f"{self.file}, {bytes_text(artifact.size_bytes)}",
            detail={"size_bytes": artifact.size_bytes},
            proofs=(proof,),
            artifacts=(replace(artifact, name="archive"),),
        )
