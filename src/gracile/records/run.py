"""What a run of a recipe leaves behind: ``run.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gracile.errors import UsageError

from .json import from_json
from .measurement import Comparison, Ratio, Speed
from .proof import Proof
from .skipped import Skipped


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The figures of one model. ``macs`` and ``params`` are counted, the rest is measured.

    ``accuracy`` is in percent on ``n`` test examples; ``size_bytes`` is the deployable file on disk;
    ``images_per_s`` is measured at ``batch`` on ``runtime``.
    """

    accuracy: float
    n: int
    macs: int
    params: int
    size_bytes: int
    images_per_s: float
    runtime: str = ""
    batch: int = 0


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One step: ``kind`` names the technique, ``detail`` holds its plan and numbers as plain JSON data."""

    name: str
    kind: str
    seconds: float
    resumed: bool = False
    accuracy: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A file that the run made; ``path`` is relative to the run's folder."""

    name: str
    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything about a run.

    ``verdict`` lists sentences; the first ``verdict_worse`` of them tell what got worse. ``layers`` holds,
    for each layer with weights, its widths, MACs and bits before and after; ``notes`` what the user should
    know about the run itself (a runtime that isn't installed, fewer images than asked for).
    """

    name: str
    recipe: dict[str, Any]
    versions: dict[str, str]
    hardware: dict[str, Any]
    seed: int
    before: Headline
    after: Headline
    comparison: Comparison | None
    steps: tuple[StepRecord, ...]
    artifacts: tuple[Artifact, ...]
    skips: tuple[Skipped, ...]
    proofs: tuple[Proof, ...]
    speeds: tuple[Speed, ...]
    ratios: tuple[Ratio, ...]
    verdict: tuple[str, ...]
    plan: dict[str, Any]
    kernels: tuple[dict[str, Any], ...] = ()
    parity: tuple[dict[str, Any], ...] = ()
    curves: tuple[dict[str, Any], ...] = ()
    layers: tuple[dict[str, Any], ...] = ()
    verdict_worse: int = 0
    notes: tuple[str, ...] = ()
    created: str = ""
    format_version: int = 1


def read_run(path: Path | str) -> Run:
    """Read ``run.json``, given by its own path or by its folder.

    Raises:
        UsageError: There is no finished run, or the file is damaged.
    """
    path = Path(path)
    file = path / "run.json" if path.is_dir() else path
    do = "Give the folder of a finished run; an unfinished one goes on with `gracile compress ... --resume`."
    try:
        return from_json(Run, file.read_bytes())
    except OSError as error:
        found = error.strerror or str(error)
        raise UsageError(str(file), wanted="the record of a run", found=found, do=do) from error
    except ValueError as error:
        raise UsageError(str(file), wanted="the record of a run", found="something else", do=do) from error
