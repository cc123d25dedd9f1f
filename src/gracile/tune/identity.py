"""What makes a training run the one that it is, as plain data: it goes on from its own checkpoint only."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from gracile.observe import raw_bytes

from .config import TuneConfig
from .hooks import StatefulHook
from .loss import Loss
from .source import Source

LONGEST = 100  # characters of a setting that an error message can show
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

Identity = dict[str, Any]


def identity_of(
    model: nn.Module, config: TuneConfig, source: Source, loss: Loss, hooks: Sequence[StatefulHook]
) -> Identity:
    """What a checkpoint must share with a call that wants to go on from it.

    A hook or a loss that has a method ``identity`` says its settings by it; of any other, the class counts.
    """
    described: Identity = {**asdict(config), "starting weights": checksum(model.state_dict())}
    described |= {"steps an epoch": source.steps, "held-out examples": source.held_size}
    described |= {"loss": getattr(loss, "__qualname__", type(loss).__name__), **_settings("loss", loss)}
    kinds = [type(hook).__name__ for hook in hooks]
    described["hooks"] = kinds
    for index, (kind, hook) in enumerate(zip(kinds, hooks, strict=True)):
        name = kind if kinds.count(kind) == 1 else f"{kind} {1 + kinds[:index].count(kind)}"
        described |= _settings(name, hook)
    plain: Identity = json.loads(json.dumps(described))
    return plain


def difference(theirs: Identity, ours: Identity) -> str:
    """Say in what another run differs, with its values.

    Example:
        >>> difference({"lr": 0.1, "seed": 0}, {"lr": 0.2, "seed": 0})
        'one that differs in lr (0.1)'
    """
    both = theirs.keys() & ours.keys()
    names = [name for name in ours | theirs if name not in both or theirs[name] != ours[name]]
    return "one that differs in " + ", ".join(f"{name} ({theirs.get(name)!r})" for name in names)


def text_of(value: object) -> str:
    """A setting as text that is the same in every process; tensors and what is long as a checksum.

    Example:
        >>> from gracile.tune import CrossEntropy
        >>> text_of(CrossEntropy()), text_of(text_of)
        ('CrossEntropy(label_smoothing=0.0)', '<function text_of>')
    """
    if isinstance(value, nn.Module | Tensor):
        state = value.state_dict() if isinstance(value, nn.Module) else {"": value}
        return f"{type(value).__name__} {checksum(state)}"
    text = _ADDRESS.sub("", repr(value))
    short = len(text) <= LONGEST
    return text if short else f"{type(value).__name__} {hashlib.sha256(text.encode()).hexdigest()}"


def checksum(state: Mapping[str, Any]) -> str:
    """SHA-256 of the names and values of a state dict."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(name.encode())
        digest.update(raw_bytes(value) if isinstance(value, Tensor) else text_of(value).encode())
    return digest.hexdigest()


def _settings(name: str, thing: object) -> dict[str, str]:
    said = getattr(thing, "identity", None)
    settings: dict[str, object] = said() if inspect.ismethod(said) else {}
    return {f"{name}.{field}": text_of(value) for field, value in settings.items()}
