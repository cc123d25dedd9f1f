"""Weights files: safetensors, or torch checkpoints that hold tensors only. Nothing is unpickled."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from gracile.errors import NonFiniteError, WeightsError

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_DAMAGED = (
    OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AssertionError, struct.error,
    zipfile.BadZipFile,
)  # fmt: skip
"""What ``torch.load`` raises on files that are cut short or changed."""
_COUNTER = "num_batches_tracked"  # does not change an output, and many weights files leave it out


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict by dotted name.

    ``.safetensors`` is read as it is; any other file by ``torch.load(weights_only=True)``, where a state
    dict may lie under the key ``state_dict``, ``model_state_dict`` or ``model``. A prefix ``module.`` on
    every name, left by data-parallel training, is taken off.

    Raises:
        WeightsError: No such file, a damaged file, or one that holds more than tensors.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "w.safetensors"
        >>> safetensors.torch.save_file({"fc.bias": torch.ones(2)}, file)
        >>> read_weights(file)
        {'fc.bias': tensor([1., 1.])}
    """
    if not path.is_file():
        raise WeightsError(str(path), wanted="a weights file", found="no such file")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if not state:
        raise WeightsError(str(path), wanted="tensors by name", found="an empty file")
    return state


def load_weights(model: nn.Module, path: Path) -> None:
    """Put the weights of ``path`` into ``model``: every name and shape must fit, every number be finite.

    Raises:
        WeightsError: The file cannot be read or does not fit.
        NonFiniteError: It holds NaN or infinity.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "w.safetensors"
        >>> safetensors.torch.save_file(nn.Linear(2, 1).state_dict(), file)
        >>> load_weights(nn.Linear(2, 1), file)
    """
    state = read_weights(path)
    wanted = model.state_dict()
    missing = [n for n in wanted if n not in state and not n.endswith(_COUNTER)]
    unexpected = [n for n in state if n not in wanted and not n.endswith(_COUNTER)]
    shapes = [
        f"{n} {tuple(state[n].shape)} instead of {tuple(wanted[n].shape)}"
        for n in wanted
        if n in state and state[n].shape != wanted[n].shape
    ]
    problems = [_few("missing", missing), _few("unexpected", unexpected), _few("of another shape", shapes)]
    if any(problems):
        raise WeightsError(
            str(path),
            wanted=f"the {len(wanted)} tensors of {type(model).__name__}",
            found="; ".join(p for p in problems if p),
            do="Name the model that these weights belong to, and its options, such as the classes.",
        )
    check_finite(state, str(path))
    model.load_state_dict({n: t for n, t in state.items() if n in wanted}, strict=False)


def check_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Raise when a tensor holds NaN or infinity, naming the first few.

    Raises:
        NonFiniteError: One or more do.

    Example:
        >>> check_finite({"a": torch.tensor([float("nan")])}, "w.pt")
        Traceback (most recent call last):
        gracile.errors.NonFiniteError: w.pt: wanted finite weights, found 1 with NaN or infinity: a.
    """
    bad = [n for n, t in state.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if bad:
        raise NonFiniteError(where, wanted="finite weights", found=_few("with NaN or infinity", bad))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(
            str(path), wanted="a whole safetensors file", found=str(error), do="Copy or download it again."
        ) from error
    return state


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            str(path),
            wanted="a checkpoint that holds tensors only",
            found="pickled Python objects, or another kind of file",
            do="A pickle can run code, so it is not opened. Where you trust it, save its tensors: "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors').",
        ) from error
    except _DAMAGED as error:
        raise WeightsError(
            str(path),
            wanted="a whole torch checkpoint",
            found=f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(": "),
            do="Copy or download it again.",
        ) from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise WeightsError(str(path), wanted="tensors by name", found=f"a {type(content).__name__}")
    odd = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if odd:
        raise WeightsError(str(path), wanted="tensors by name", found=_few("not tensors", odd))
    return {str(name): tensor for name, tensor in content.items()}


def _few(what: str, names: Iterable[str]) -> str:
    """``3 missing: a, b, c`` with at most four names; empty for none."""
    names = list(names)
    if not names:
        return ""
    return f"{len(names)} {what}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
