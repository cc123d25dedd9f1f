"""Run a recipe: stage by stage, each finished one kept on disk, so that a run that was stopped goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from gracile import data, zoo
from gracile.data import DataBundle
from gracile.data.load import find_root
from gracile.errors import UsageError, WeightsError
from gracile.records import Run, atomic_bytes, to_json

from . import checkpoint as checkpoints
from .assemble import assemble
from .checkpoint import FOLDER, Checkpoint
from .fingerprint import code_version, key_of, start_key
from .measuring import answers
from .progress import Live, Reporter, Silent
from .recipe import Recipe
from .stages import Stage, stages
from .state import Bench, State

IMAGES = 32  # at hand for comparing and timing


def run(
    recipe: Recipe,
    out: Path | str,
    *,
    data_root: Path | str | None = None,
    resume: bool = False,
    progress: bool | Reporter = True,
) -> Run:
    """Carry out ``recipe`` and leave everything in ``out``.

    Args:
        recipe: What to do.
        out: Folder of the run; new or empty, unless ``resume``.
        data_root: Folder of data sets and weights.
        resume: Go on with a run that was stopped: finished stages are taken from their checkpoints; from the
            first one whose recipe, weights or code changed, all are done again.
        progress: Whether to show it, or an object that shows it.

    Returns:
        What ``out/run.json`` holds.

    Raises:
        UsageError: ``out`` holds something else, or the recipe asks for what cannot be.
        GracileError: A stage failed; what was finished before it is kept.
    """
    out, root = Path(out), None if data_root is None else Path(data_root)
    reporter: Reporter = (Live() if progress else Silent()) if isinstance(progress, bool) else progress
    _open(out, recipe, resume)
    with reporter, _threads(recipe.threads):
        work = _Work(recipe=recipe, out=out, root=root, reporter=reporter)
        work.prepare()
        for position, stage in enumerate(stages(recipe)):
            work.carry_out(position, stage)
        result = assemble(recipe, work.done, work.reused, work.notes)
    atomic_bytes(out / "run.json", to_json(result))
    return result


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Give PyTorch so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _open(out: Path, recipe: Recipe, resume: bool) -> None:
    """Claim the folder for this recipe."""
    if out.exists() and not out.is_dir():
        raise UsageError(str(out), wanted="a folder for the run", found="a file", do="Choose another --out.")
    content = [path.name for path in out.iterdir()] if out.exists() else []
    ours = "recipe.json" in content
    if content and not (ours and resume):
        do = (
            "Add --resume to go on with the run in it, or choose another --out."
            if ours
            else "Choose another --out: this folder does not hold a run."
        )
        raise UsageError(str(out), wanted="a new or empty folder", found=f"{len(content)} entries", do=do)
    atomic_bytes(out / "recipe.json", json.dumps(recipe.model_dump(mode="json"), indent=2))


@dataclass(kw_only=True)
class _Work:
    """A run under way."""

    recipe: Recipe
    out: Path
    root: Path | None
    reporter: Reporter
    done: dict[str, Checkpoint] = field(default_factory=dict)
    reused: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)  # of this run; those of a stage are in its checkpoint
    changed: bool = False
    last: Checkpoint | None = None  # of the newest stage that the model went through
    state: State | None = None  # what it left, when it is in memory

    def prepare(self) -> None:
        """Read data and model once, so that mistakes show before any work."""
        recipe = self.recipe
        for step in recipe.steps:
            step.check()
        self.root = find_root(self.root)
        self.weights = find_weights(recipe.model.weights, self.root)
        self.bundle: DataBundle = data.load_data(recipe.data.spec, self.root, **recipe.data.options)
        few = min(IMAGES, len(self.bundle.train))
        self.images: Tensor = self.bundle.calibration(few, recipe.seed)
        self.inputs: tuple[Tensor, ...] = (self.images[:1],)
        self.key = start_key(recipe, self.weights, self.root)
        self.total = len(stages(recipe))

    def build(self) -> nn.Module:
        """The model as the recipe names it."""
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed)
            part = self.recipe.model
            return zoo.load_model(part.spec, weights=self.weights, options=part.options)

    def carry_out(self, position: int, stage: Stage) -> None:
        """Do one stage, or take its checkpoint when it still stands."""
        folder = f"{position:02}-{stage.name}"
        key = key_of(self.key, stage.kind, stage.config)
        self.reporter.begin(stage.name, position, self.total)
        found = checkpoints.load(self.out, folder)
        if found is not None and found.key == key:
            self._reuse(folder, stage, found)
        else:
            self._tell_change(stage, found)
            self._do(folder, key, stage)
        if not stage.beside:
            self.key, self.last = key, self.done[stage.name]

    def _tell_change(self, stage: Stage, found: Checkpoint | None) -> None:
        """Say once why finished work is done again."""
        if found is not None and not self.changed:
            what = "the recipe, data or weights" if found.code == code_version() else "Gracile itself"
            text = f"{what} changed since the last run: going on from {stage.name}, which is done again."
            self._note(text, self.notes)
            self.changed = True

    def _reuse(self, folder: str, stage: Stage, found: Checkpoint) -> None:
        config = self.recipe.measure.accuracy_config
        if stage.measured and found.accuracy_config != config:
            state = checkpoints.restore(found, self.out, self.build, self.inputs)
            accuracy = answers(state.current, self.bundle, self.recipe.measure).accuracy
            found = replace(found, accuracy=accuracy.percent, accuracy_config=config)
            checkpoints.save_record(self.out, folder, found)
        self.done[stage.name] = found
        self.reused.add(stage.name)
        self.reporter.end(stage.name, found.summary, found.seconds, True)
        if not stage.beside:
            self.state = None

    def _do(self, folder: str, key: str, stage: Stage) -> None:
        checkpoints.clear(self.out, folder)
        notes: list[str] = []
        start = time.perf_counter()
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed)
            outcome = stage.work(self._current(), self._bench(folder, key, notes))
        seconds = time.perf_counter() - start
        config = self.recipe.measure.accuracy_config if stage.measured else {}
        accuracy = None
        if stage.measured:
            model = outcome.state.current
            accuracy = answers(model, self.bundle, self.recipe.measure, self.reporter.tick).accuracy
        self.done[stage.name] = checkpoints.save(
            self.out,
            folder,
            outcome,
            previous=self.last,
            record={
                "key": key,
                "code": code_version(),
                "kind": stage.kind,
                "name": stage.name,
                "seconds": seconds,
                "accuracy": None if accuracy is None else accuracy.percent,
                "accuracy_config": config,
                "notes": tuple(notes),
            },
        )
        self.state = outcome.state
        shown = "" if accuracy is None else f", accuracy {accuracy.percent:.1f} %"
        self.reporter.end(stage.name, outcome.summary + shown, seconds, False)

    def _current(self) -> State:
        """The model as the newest step left it."""
        if self.state is None:
            if self.last is None:
                self.state = State(model=self.build())
            else:
                self.state = checkpoints.restore(self.last, self.out, self.build, self.inputs)
        return self.state

    def _bench(self, folder: str, key: str, notes: list[str]) -> Bench:
        return Bench(
            bundle=self.bundle,
            inputs=self.inputs,
            images=self.images,
            seed=self.recipe.seed,
            out=self.out,
            partial=self.out / FOLDER / folder / f"partial-{key[:12]}",
            done=self.done,
            restored=lambda name: checkpoints.restore(self.done[name], self.out, self.build, self.inputs),
            tick=self.reporter.tick,
            note=lambda text: self._note(text, notes),
        )

    def _note(self, text: str, notes: list[str]) -> None:
        notes.append(text)
        self.reporter.note(text)


def find_weights(weights: str | None, root: Path | None) -> Path | None:
    """Find a weights file: as it is named, else under the data root.

    Raises:
        WeightsError: There is none.
    """
    if weights is None:
        return None
    tried = [Path(weights).expanduser(), *([root / weights] if root else [])]
    for path in tried:
        if path.is_file():
            return path
    do = "" if root else "Name the folder that holds it with --data-root or GRACILE_DATA."
    found = f"none at {' or '.join(map(str, tried))}"
    raise WeightsError(weights, wanted="a weights file", found=found, do=do)
