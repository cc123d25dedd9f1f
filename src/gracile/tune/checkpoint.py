"""A run's state in one file: tensors as safetensors, everything else as JSON in its header. No pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gracile.errors import StorageError
from gracile.records import atomic_write

State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What training needs to go on.

    ``optimizer`` is a torch optimizer's state dictionary; ``best`` and ``ema`` are absent where nothing was
    held out or averaged; ``facts`` is plain JSON data.
    """

    model: State
    optimizer: dict[str, Any]
    best: State = field(default_factory=dict)
    ema: State = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` to ``path``, wholly or not at all.

    Raises:
        StorageError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "run.safetensors"
        >>> optimizer = {"state": {0: {"step": torch.ones(())}}, "param_groups": [{"lr": 0.1}]}
        >>> save_checkpoint(path, Checkpoint(model={"w": torch.zeros(2)}, optimizer=optimizer))
        >>> load_checkpoint(path).optimizer["state"][0]["step"].item()
        1.0
    """
    tensors: State = {}
    for part in ("model", "best", "ema"):
        for name, tensor in getattr(checkpoint, part).items():
            tensors[f"{part}.{name}"] = tensor
    numbers: dict[str, dict[str, Any]] = {}
    for index, values in checkpoint.optimizer["state"].items():
        numbers[str(index)] = {}
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                numbers[str(index)][name] = value
    header = {
        "facts": json.dumps(checkpoint.facts),
        "optimizer": json.dumps({"state": numbers, "param_groups": checkpoint.optimizer["param_groups"]}),
    }
    whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        try:
            save_file(whole, temporary, metadata=header)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what :func:`save_checkpoint` wrote, to the CPU.

    Raises:
        StorageError: The file is damaged or is no checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        facts, optimizer = json.loads(header["facts"]), json.loads(header["optimizer"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise StorageError(
            str(path),
            wanted="a checkpoint of a fine-tuning run",
            found=f"{type(error).__name__}: {error}",
            do="Delete it to start the run anew.",
        ) from error
    parts: dict[str, State] = {part: {} for part in ("model", "best", "ema")}
    state: dict[int, dict[str, Any]] = {int(index): dict(v) for index, v in optimizer["state"].items()}
    for key, tensor in tensors.items():
        part, _, name = key.partition(".")
        if part == "optimizer":
            index, _, slot = name.partition(".")
            state[int(index)][slot] = tensor
        else:
            parts[part][name] = tensor
    groups = {"state": state, "param_groups": optimizer["param_groups"]}
    return Checkpoint(optimizer=groups, facts=facts, **parts)


def copy_state(module: torch.nn.Module) -> State:
    """The parameters and buffers of ``module``, copied to the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}
