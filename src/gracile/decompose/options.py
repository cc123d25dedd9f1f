"""The ways to write one layer, and what each costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import nn

from .forms import SVD, Form, Space
from .forms.form import positions
from .forms.refine import output_error
from .survey import Seen


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """Milliseconds of one call of a layer and of what would stand for it; ``faster`` beyond the noise."""

    dense: float
    factored: float
    faster: bool

    @property
    def text(self) -> str:
        """Why the layer stays, for people."""
        known = "" if self.factored >= self.dense else ", no more than the noise of the measurement"
        return f"factored it takes {self.factored:.3g} ms instead of {self.dense:.3g}{known}"


Timer = Callable[[str, nn.Module, nn.Module, tuple[int, ...]], LayerTime]
"""Layer name, the layer, what would stand for it, shape of one input: how long both take."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way to write one layer, and what it costs; ``form`` is ``None`` for the layer as it is.

    ``params`` counts weights, ``biases`` what a bias adds that the layer has not and a lost mean needs.
    ``nanoseconds`` is the measured time of all calls, 0 where nothing was timed.
    """

    form: Form | None
    ranks: tuple[int, ...]
    error: float
    macs: int
    params: int
    biases: int = 0
    nanoseconds: int = 0


def options_of(seen: Seen, forms: Sequence[Form]) -> list[Option]:
    """The layer as it is, and all cheaper ways to write it that no other beats in both error and cost."""
    weight = seen.layer.get_parameter("weight").detach()
    shape = tuple(weight.shape)
    dense = Option(form=None, ranks=(), error=0.0, macs=_dense_macs(shape, seen), params=prod(shape))
    found = []
    biases = shape[0] if seen.mean is not None and seen.layer.bias is None else 0
    with torch.no_grad():
        for form in forms:
            if form.refuses(seen.layer) is not None:
                continue
            known = form.errors(weight, seen.covariance) if isinstance(form, SVD) else None
            for ranks in form.ranks(shape):
                macs = seen.macs(partial(form.macs, shape, ranks))
                params = macs_params(form, shape, ranks)
                if macs >= dense.macs and params >= dense.params:
                    continue
                if known is None:
                    dense_again = form.dense(form.factor(weight, ranks, None)).double()
                    error = float(output_error(weight.double(), dense_again, seen.covariance))
                else:
                    error = float(known[ranks[0]])
                found.append(
                    Option(form=form, ranks=ranks, error=error, macs=macs, params=params, biases=biases)
                )
    return [dense, *found]


def macs_params(form: Form, shape: Sequence[int], ranks: Sequence[int]) -> int:
    """Weights of what stands for a layer: its multiply-adds at one position everywhere."""
    one = (1,) * (len(shape) - 2)
    return form.macs(shape, ranks, Space(read=one, given=one))


def _dense_macs(shape: Sequence[int], seen: Seen) -> int:
    return seen.macs(lambda space: prod(shape) * positions(space.given))
