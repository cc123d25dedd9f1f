"""Every error of Gracile says where, what was wanted, what was found and what to do.

Facts are attributes; the text is formatted late, so a test reads fields and a person reads
sentences. ``exit_code`` is what the command ends with: 2 for wrong use, 1 for a failure.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class GracileError(Exception):
    """Root of all errors raised on purpose.

    Args:
        where: Place in the user's terms: a dotted module name, a recipe line, a file.
        wanted: What was expected there.
        found: What was there instead.
        do: What the user can do about it.
    """

    exit_code = 1

    def __init__(self, where: str, *, wanted: str, found: str, do: str = "") -> None:
        super().__init__(where, wanted, found, do)
        self.where, self.wanted, self.found, self.do = where, wanted, found, do

    def __str__(self) -> str:
        text = f"{self.where}: wanted {self.wanted}, found {self.found}."
        return f"{text} {self.do}" if self.do else text


class UsageError(GracileError):
    """The caller asked for something that cannot be: wrong use, exit code 2."""

    exit_code = 2


class BadArgument(UsageError, ValueError):
    """A function argument lies outside its range."""


class RecipeError(UsageError):
    """A recipe has an unknown key, a wrong type or a value out of range.

    ``where`` is ``file:line, field``.
    """


class ModelError(UsageError):
    """A model specification does not name a model that can be built."""


class WeightsError(UsageError):
    """A weights file does not fit the model, or is not a safe weights file."""


class DataError(UsageError):
    """A data set is absent, empty or holds files that cannot be read."""


class MissingExtra(UsageError, ImportError):
    """An optional dependency is not installed."""


class CaptureError(GracileError):
    """``torch.export`` could not capture the model."""


class UnsupportedOperation(GracileError):
    """The model does something that this technique cannot handle."""


class BudgetError(UsageError):
    """A budget cannot be met; ``found`` names the nearest that can."""


class NonFiniteError(GracileError):
    """Weights, activations or a loss hold NaN or infinity."""


class ProofError(GracileError):
    """A result that must hold exactly on the user's model does not."""


class ExportError(GracileError):
    """An exported file is invalid or differs from the simulation."""


class StorageError(GracileError):
    """A file could not be written, or is damaged."""


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """A sentence for ``do``: the close matches of ``found``, else everything known (at most twelve).

    Example:
        >>> did_you_mean("resnet65", ["resnet20", "resnet56", "vgg"])
        'Did you mean resnet56 or resnet20?'
        >>> did_you_mean("transformer", ["digits", "mnist"])
        'Choose from digits, mnist.'
    """
    names = list(known)
    close = difflib.get_close_matches(found, names, n=3, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    rest = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"Choose from {', '.join(names[:12])}{rest}."


def import_extra(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Raises:
        MissingExtra: It is not installed; the text names the command that installs it.

    Example:
        >>> import_extra("json", "vision").__name__
        'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            module,
            wanted="this optional package to be installed",
            found=str(error),
            do=f"Run: pip install 'gracile[{extra}]'",
        ) from error
