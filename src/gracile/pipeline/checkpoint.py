"""A finished stage on disk: its weights as safetensors and all the rest as JSON; nothing is pickled.

``OUT/checkpoints/NN-NAME/`` holds ``stage.json``, written last, so that a folder without it is unfinished,
and ``weights.safetensors`` where the stage changed the weights; otherwise ``stage.json`` names the earlier
file that still holds.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from gracile.errors import StorageError
from gracile.records import (
    Artifact,
    MaskPlan,
    Proof,
    QuantPlan,
    Skipped,
    atomic_bytes,
    atomic_write,
    from_json,
    sha256,
    to_json,
)

from .state import Change, Outcome, State
from .steps import STEPS

FOLDER = "checkpoints"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What ``stage.json`` holds. ``weights`` is relative to the run's folder; ``notes`` is what the user was
    told meanwhile."""

    key: str
    code: str
    kind: str
    name: str
    seconds: float
    summary: str
    weights: str
    weights_sha256: str
    changes: tuple[Change, ...] = ()
    masks: MaskPlan | None = None
    quant: QuantPlan | None = None
    deployed: str = ""
    accuracy: float | None = None
    accuracy_config: dict[str, Any] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    skips: tuple[Skipped, ...] = ()
    proofs: tuple[Proof, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    notes: tuple[str, ...] = ()


def save(
    out: Path, stage: str, outcome: Outcome, *, previous: Checkpoint | None, record: dict[str, Any]
) -> Checkpoint:
    """Write the checkpoint of a stage.

    Args:
        out: The run's folder.
        stage: Name of the stage's folder.
        outcome: What the stage left.
        previous: Checkpoint of the step before, whose weights may still hold.
        record: The other fields of :class:`Checkpoint`.

    Raises:
        StorageError: No space left, or the folder cannot be written.
    """
    weights, checksum = _save_weights(out, stage, outcome.state.model, previous)
    state = outcome.state
    checkpoint = Checkpoint(
        weights=weights,
        weights_sha256=checksum,
        changes=state.changes,
        masks=state.masks,
        quant=state.quant,
        deployed=state.deployed,
        summary=outcome.summary,
        detail=outcome.detail,
        kept=outcome.kept,
        skips=outcome.skips,
        proofs=outcome.proofs,
        artifacts=outcome.artifacts,
        **record,
    )
    save_record(out, stage, checkpoint)
    return checkpoint


def save_record(out: Path, stage: str, checkpoint: Checkpoint) -> None:
    """Write ``stage.json``; the stage counts as finished from then on."""
    atomic_bytes(out / FOLDER / stage / "stage.json", to_json(checkpoint))
    for partial in (out / FOLDER / stage).glob("partial-*"):
        partial.unlink()


def _save_weights(out: Path, stage: str, model: nn.Module, previous: Checkpoint | None) -> tuple[str, str]:
    path = out / FOLDER / stage / "weights.safetensors"
    checksum = write_weights(path, model)
    if previous is not None and previous.weights_sha256 == checksum:
        path.unlink()
        return previous.weights, checksum
    return str(path.relative_to(out)), checksum


def write_weights(path: Path, model: nn.Module) -> str:
    """Write a model's weights as safetensors, wholly or not at all, and return their checksum.

    Raises:
        StorageError: No space left, or the folder cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _unshared(model).items()}
    with atomic_write(path) as temporary:
        try:
            safetensors.torch.save_file(tensors, temporary)
        except safetensors.SafetensorError as error:  # it reports a full disk in its own way
            raise StorageError(
                str(path), wanted="to write this file", found=str(error), do="Free some space, then --resume."
            ) from error
    return sha256(path)


def _unshared(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with a copy of its own for each name: safetensors refuses shared memory."""
    seen: set[int] = set()
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        state[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return state


def load(out: Path, stage: str) -> Checkpoint | None:
    """Read the checkpoint of a stage; None where there is none, or one that is damaged."""
    file = out / FOLDER / stage / "stage.json"
    try:
        checkpoint = from_json(Checkpoint, file.read_bytes())
    except (OSError, ValidationError):
        return None
    needed = [(checkpoint.weights, checkpoint.weights_sha256)]
    needed += [(artifact.path, artifact.sha256) for artifact in checkpoint.artifacts]
    whole = all((out / path).is_file() and sha256(out / path) == checksum for path, checksum in needed)
    return checkpoint if whole else None


def restore(
    checkpoint: Checkpoint, out: Path, build: Callable[[], nn.Module], inputs: tuple[Tensor, ...]
) -> State:
    """Build the model again as the stage left it.

    Args:
        checkpoint: What :func:`load` gave.
        out: The run's folder.
        build: Makes the original model; its numbers do not matter.
        inputs: Example inputs, to simulate a quantized model again.
    """
    from gracile import quantize

    model = build()
    for change in checkpoint.changes:
        model = STEPS[change.kind].restore(model, change.plan)
    tensors = safetensors.torch.load_file(out / checkpoint.weights)
    _add_biases(model, tensors)
    model.load_state_dict(tensors)
    model.eval()
    quantized = None if checkpoint.quant is None else quantize.rebuild(model, inputs, checkpoint.quant)
    return State(
        model=model,
        changes=checkpoint.changes,
        masks=checkpoint.masks,
        quant=checkpoint.quant,
        quantized=quantized,
        deployed=checkpoint.deployed,
    )


def _add_biases(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Make room for biases that a step added: a carried constant needs one where there was none."""
    for name, module in model.named_modules():
        tensor = tensors.get(f"{name}.bias")
        if tensor is not None and "bias" in module._parameters and module.bias is None:
            module.bias = nn.Parameter(torch.zeros_like(tensor))


def clear(out: Path, stage: str) -> None:
    """Make ``stage`` count as unfinished, and remove others of the same number, left by an earlier recipe."""
    (out / FOLDER / stage / "stage.json").unlink(missing_ok=True)
    for folder in (out / FOLDER).glob(f"{stage.partition('-')[0]}-*"):
        if folder.name != stage:
            shutil.rmtree(folder)
