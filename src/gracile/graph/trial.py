"""Whether a changed model gives the outputs of the one that it was made from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves

from gracile.errors import BadArgument

from .capture import evaluating

_HALF = (torch.float16, torch.bfloat16)


class Trial:
    """A model's outputs on random inputs, and the means to get those of changed copies of it.

    Half precision, and TensorFloat-32 on a GPU, move outputs further than a wrong fold does. So weights are
    held in float32 at least, as they would be stored, and computed with in float64, on the CPU. A model
    whose code does not run so runs in float32 there, and one that does not either as it is, where it is.
    Where random inputs give infinities or NaN (a logarithm of them, say), ``inputs`` themselves are used.

    Attributes:
        model: The copy to change.
        outputs: What it gives.

    Args:
        model: Any module; left as it was.
        inputs: Example inputs; random values of their shapes are used, integers as they are.
        seed: Of the random inputs.

    Raises:
        RuntimeError: The model does not run on these inputs.

    Example:
        >>> trial = Trial(nn.Linear(4, 2).bfloat16(), (torch.zeros(1, 4, dtype=torch.bfloat16),))
        >>> changed = nn.Sequential(trial.model, nn.Identity())
        >>> difference(trial.run(changed), trial.outputs)
        0.0
    """

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...], *, seed: int = 0) -> None:
        _run(model, inputs)  # leaves computed weights (``torch.nn.utils.prune``) as copies can take them
        draw = torch.Generator().manual_seed(seed)
        random = tuple(
            torch.randn(x.shape, generator=draw).to(x) if x.is_floating_point() else x for x in inputs
        )
        for dtype in (torch.float64, torch.float32, None):
            self._dtype: torch.dtype | None = dtype
            self.model = self.held(model)
            self._inputs = random
            try:
                self.outputs = self.run(self.model)
                break
            except RuntimeError:
                if dtype is None:
                    raise
        if not all(bool(t.isfinite().all()) for t in tree_leaves(self.outputs) if isinstance(t, Tensor)):
            self._inputs = inputs
            self.outputs = self.run(self.model)

    def held(self, model: nn.Module) -> nn.Module:
        """A copy of a model in the precision that changes are made in."""
        found = copy.deepcopy(model)
        if self._dtype is None:
            return found
        half = any(t.dtype in _HALF for t in (*found.parameters(), *found.buffers()))
        return found.cpu().float() if half else found.cpu()

    def kept_by(self, change: Callable[[nn.Module], nn.Module], tolerance: float) -> bool:
        """Whether what ``change`` makes of :attr:`model` can be made, runs, and gives the outputs."""
        try:
            found = self.run(change(self.model))
        except (RuntimeError, AttributeError, TypeError, BadArgument):
            return False
        return difference(found, self.outputs) <= tolerance

    def run(self, model: nn.Module) -> Any:
        """Outputs of a model made from :attr:`model` in evaluation mode; it is left as it was."""
        if self._dtype is None:
            return _run(model, self._inputs)
        given = tuple(x.cpu().to(self._dtype) if x.is_floating_point() else x.cpu() for x in self._inputs)
        return _run(copy.deepcopy(model).to(self._dtype), given)


def _run(model: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """Outputs of a model that may write into what it is given."""
    with evaluating(model), torch.no_grad():
        return model(*(x.clone() for x in inputs))


def difference(found: Any, wanted: Any) -> float:
    """Largest difference of two outputs, relative to the largest number of the tensor it is in.

    Of tensors that hold no fractions, and of what is no tensor, it is the share that differs. Where both
    are the same infinity, or NaN, there is none; where one alone is, or where the outputs are built of other
    parts, it is infinite.

    Args:
        found: Tensor, number, or any nesting of lists, tuples and dictionaries of them.
        wanted: The like.

    Example:
        >>> difference({"a": torch.tensor([1.0, 4.5])}, {"a": torch.tensor([1.0, 4.0])})
        0.125
        >>> difference(torch.tensor([True, False]), torch.tensor([True, True]))
        0.5
        >>> difference([torch.ones(2)], torch.ones(2))
        inf
    """
    (mine, built), (other, wanted_build) = tree_flatten(found), tree_flatten(wanted)
    if built != wanted_build:
        return float("inf")
    return max((_distance(a, b) for a, b in zip(mine, other, strict=True)), default=0.0)


def _distance(found: Any, wanted: Any) -> float:
    if not isinstance(wanted, Tensor) or not isinstance(found, Tensor):
        return float(found is not wanted and found != wanted)
    if found.shape != wanted.shape:
        return float("inf")
    if wanted.numel() == 0:
        return 0.0
    if not (wanted.is_floating_point() or wanted.is_complex()):
        return float((found != wanted).float().mean())
    same = (found == wanted) | (found.isnan() & wanted.isnan())
    off = float((found - wanted).abs().masked_fill(same, 0.0).max())
    largest = float(wanted.abs().nan_to_num(0.0, 0.0, 0.0).max())
    return off / max(largest, 1e-6) if off < float("inf") else float("inf")
