"""What steps hand to one another: the model and how to build it again, the tools, and what a step leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from gracile.data import DataBundle
from gracile.errors import BadArgument
from gracile.records import Artifact, MaskPlan, Proof, QuantPlan, Skipped

if TYPE_CHECKING:
    from .checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of structure: the kind of step that made it and its plan as plain JSON data."""

    kind: str
    plan: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class State:
    """The model between two steps.

    ``model`` is the user's own class in float; ``changes`` rebuild its structure from a fresh one;
    ``masks`` says which of its weights are zero for good; ``quantized`` simulates ``quant`` on it;
    ``deployed`` is the file that this model was exported to, relative to the run's folder; empty where a
    step changed the model since.
    """

    model: nn.Module
    changes: tuple[Change, ...] = ()
    masks: MaskPlan | None = None
    quant: QuantPlan | None = None
    quantized: nn.Module | None = None
    deployed: str = ""

    @property
    def current(self) -> nn.Module:
        """What would be deployed now: the quantized simulation, or the float model."""
        return self.model if self.quantized is None else self.quantized

    def changed(self, model: nn.Module, change: Change) -> State:
        """The state after a change of structure."""
        return replace(self, model=model, changes=(*self.changes, change))

    def refuse_masks(self, step: str) -> None:
        """Raise ``BadArgument`` where weights are zero for good: ``step`` would make others of them."""
        if self.masks is not None:
            raise BadArgument(
                step, wanted="a model without masks", found="one that a sparsify step has masked",
                do=f"Put {step} before sparsify.",
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The tools a step works with.

    ``inputs`` is one image, for capturing, ``images`` a few, for comparing and timing; ``out`` the run's
    folder; ``partial`` a file that a long step may keep its own progress in; ``done`` the finished stages by
    name, and ``restored(name)`` the model as one of them left it; ``tick(text, done, total)`` tells the user
    how far the step is, ``note(text)`` what they should know.
    """

    bundle: DataBundle
    inputs: tuple[Tensor, ...]
    images: Tensor
    seed: int
    out: Path
    partial: Path
    done: Mapping[str, Checkpoint]
    restored: Callable[[str], State]
    tick: Callable[[str, float, float], None]
    note: Callable[[str], None]

    def calibration(self, count: int) -> Tensor:
        """Unlabelled training images: ``count`` of them, or all where there are fewer (and says so)."""
        return self.labelled(count)[0]

    def labelled(self, count: int) -> tuple[Tensor, Tensor]:
        """The same training images with their labels."""
        available = len(self.bundle.train)
        if available < count:
            self.note(f"Calibrated with all {available} training images; the recipe asks for {count}.")
        return self.bundle.labelled(min(count, available), self.seed)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a step leaves: the new state, and for ``run.json`` its numbers and records.

    ``kept`` is saved with the checkpoint but not shown in ``run.json``.
    """

    state: State
    summary: str
    detail: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    skips: tuple[Skipped, ...] = ()
    proofs: tuple[Proof, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
