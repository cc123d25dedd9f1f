"""The record of a run from the checkpoints of its stages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from gracile.records import (
    Artifact,
    Comparison,
    Headline,
    Ratio,
    Run,
    Speed,
    StepRecord,
    from_plain,
    to_plain,
)

from .checkpoint import Checkpoint
from .recipe import Recipe
from .verdict import verdict


def assemble(
    recipe: Recipe, done: Mapping[str, Checkpoint], reused: Collection[str], notes: Sequence[str]
) -> Run:
    """Put together what ``run.json`` holds; figures are only moved here, never made.

    Args:
        recipe: What was carried out.
        done: The stages by name, in order.
        reused: Names of those that an earlier run had finished.
        notes: What the user should know about this run beside what its stages told.
    """
    last = done["compare"].kept
    before, after = (from_plain(Headline, last[which]) for which in ("before", "after"))
    comparison = from_plain(Comparison, last["comparison"])
    ratios = tuple(from_plain(Ratio, ratio) for ratio in last["ratios"])
    proofs = tuple(proof for checkpoint in done.values() for proof in checkpoint.proofs)
    deployed = done["compare"].deployed
    exported = next((c.detail for c in done.values() if c.detail.get("file") == deployed), {})
    kernels = tuple(exported.get("kernels", ()))
    found = verdict(
        before=before,
        after=after,
        comparison=comparison,
        ratios=ratios,
        runtimes=last["runtimes"],
        accuracies=done["compare"].detail["accuracies"],
        proofs=proofs,
        kernels=kernels,
        kernels_of=exported.get("target", ""),
    )
    return Run(
        name=recipe.name,
        recipe=recipe.model_dump(mode="json"),
        versions=last["versions"],
        hardware=last["hardware"],
        seed=recipe.seed,
        before=before,
        after=after,
        comparison=comparison,
        steps=tuple(_step(checkpoint, checkpoint.name in reused) for checkpoint in done.values()),
        artifacts=tuple(
            _named(artifact, checkpoint, deployed)
            for checkpoint in done.values()
            for artifact in checkpoint.artifacts
        ),
        skips=tuple(dict.fromkeys(skip for checkpoint in done.values() for skip in checkpoint.skips)),
        proofs=proofs,
        speeds=tuple(from_plain(Speed, speed) for speed in last["speeds"]),
        ratios=ratios,
        verdict=found.sentences,
        verdict_worse=len(found.worse),
        plan={"deployed": deployed, **_plans(done["compare"])},
        kernels=kernels,
        parity=tuple(exported.get("parity", ())),
        curves=tuple(
            {"step": c.name, "epochs": c.detail["epochs"], "sparsity": c.detail.get("sparsity", [])}
            for c in done.values()
            if "epochs" in c.detail
        ),
        layers=tuple(last["layers"]),
        notes=tuple(dict.fromkeys([*notes, *(note for c in done.values() for note in c.notes)])),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _named(artifact: Artifact, checkpoint: Checkpoint, deployed: str) -> Artifact:
    """The file with a name that says so where it was exported before the model changed again."""
    if checkpoint.kind != "export" or artifact.path == deployed:
        return artifact
    return replace(artifact, name=f"the model at {checkpoint.name}")


def _step(checkpoint: Checkpoint, reused: bool) -> StepRecord:
    """A stage for ``run.json``; what has a place of its own in the record is left out."""
    detail = {name: value for name, value in checkpoint.detail.items() if name not in ("kernels", "parity")}
    return StepRecord(
        name=checkpoint.name,
        kind=checkpoint.kind,
        seconds=checkpoint.seconds,
        resumed=reused,
        accuracy=checkpoint.accuracy,
        detail={"summary": checkpoint.summary} | detail,
    )


def _plans(last: Checkpoint) -> dict[str, Any]:
    """What was changed, in order, and how values are quantized.

    Rounding and masks are left to the checkpoint: they are as long as the weights, which the deployed file
    holds; of masks, the share of zeros is told.
    """
    changes = [{"kind": change.kind, "plan": change.plan} for change in last.changes]
    quant = last.quant
    if quant is not None:
        quant = replace(quant, weights=tuple(replace(weight, moved="") for weight in quant.weights))
    zeros = {} if last.masks is None else last.masks.by_layer
    return {"changes": changes, "zeros": zeros, "quantize": None if quant is None else to_plain(quant)}
