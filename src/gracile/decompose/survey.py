"""What is known of the layers that could be factored: their sizes in use, and what they read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from gracile.errors import NonFiniteError
from gracile.graph import evaluating
from gracile.observe import Batch, Calibration, batches_of, device_of
from gracile.observe.gram import Gram, patches

from .forms import Space
from .forms.form import CONVOLUTIONS, plain, positions

_SAMPLE = 4096  # rows of one batch that enter the covariance of a layer


@dataclass(frozen=True, kw_only=True)
class Use:
    """One call of a layer: ``space`` for one image, and how many images it was for."""

    space: Space
    images: int


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One layer: its calls for a batch of inputs, moments of what one output reads.

    ``covariance`` ``(in * taps, in * taps)`` and ``mean`` ``(in * taps,)`` are centred moments of so many
    ``rows``, ``None`` without data.
    """

    name: str
    layer: nn.Module
    uses: tuple[Use, ...]
    batch: int
    covariance: Tensor | None = None
    mean: Tensor | None = None
    rows: int = 0

    @property
    def space(self) -> Space:
        """Of the first call."""
        return self.uses[0].space

    @property
    def calls(self) -> float:
        """How often the layer does the work of one image of its first call, for one input of the model."""
        given = sum(use.images * positions(use.space.given) for use in self.uses)
        return given / (self.batch * positions(self.space.given))

    def macs(self, of: Callable[[Space], int]) -> int:
        """Multiply-adds of all calls, from those for one image of a size."""
        return sum(use.images * of(use.space) for use in self.uses)


def survey(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    calibration: Calibration | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, Seen]:
    """Run the model and look at its convolutions and linear layers.

    Args:
        model: Any module; it runs in evaluation mode and is left as it was.
        inputs: Example inputs, for the sizes.
        calibration: Unlabelled inputs, for the moments; one tensor, or batches.
        names: Layers to look at; default, all.
        seed: Of the positions that are sampled from large layers.

    Raises:
        BadArgument: ``calibration`` holds no inputs.
        NonFiniteError: Weights or activations hold NaN or infinity; the layer is named.
    """
    layers: dict[str, nn.Module] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (*CONVOLUTIONS, nn.Linear)) and (names is None or name in names)
    }
    for name, layer in layers.items():
        weight = layer._parameters.get("weight")
        if weight is not None and not bool(weight.isfinite().all()):
            raise NonFiniteError(
                name, wanted="finite weights", found="NaN or infinity", do="Load the trained weights again."
            )
    sizes = _sizes(model, inputs, layers)
    used = {name: layers[name] for name in sizes}
    moments = {} if calibration is None else _moments(model, calibration, used, seed)
    batch = _batch(inputs)
    found = {}
    for name, uses in sizes.items():
        covariance, mean, rows = moments.get(name, (None, None, 0))
        found[name] = Seen(
            name=name,
            layer=layers[name],
            uses=tuple(uses),
            batch=batch,
            covariance=covariance,
            mean=mean,
            rows=rows,
        )
    return found


def _batch(inputs: tuple[Tensor, ...]) -> int:
    return inputs[0].shape[0] if inputs and inputs[0].dim() else 1


def _sizes(
    model: nn.Module, inputs: tuple[Tensor, ...], layers: dict[str, nn.Module]
) -> dict[str, list[Use]]:
    found: dict[str, list[Use]] = {}
    batch = _batch(inputs)

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            found.setdefault(name, []).append(_use(layer, args[0], out, batch))

        return hook

    _run(model, [inputs], {layer: look(name) for name, layer in layers.items()})
    return found


def _use(layer: nn.Module, x: Tensor, out: Tensor, batch: int) -> Use:
    """One call; rows of a linear layer that are laid flat are parted among the model's inputs."""
    if isinstance(layer, nn.Linear):
        rows = prod(x.shape[:-1])
        if x.dim() > 1 and x.shape[0] == batch:
            place, images = tuple(x.shape[1:-1]), batch
        else:
            images = batch if rows % batch == 0 else 1
            place = (rows // images,)
        return Use(space=Space(read=place, given=place), images=images)
    assert isinstance(layer, CONVOLUTIONS)
    axes = layer.weight.dim() - 2
    images = x.shape[0] if x.dim() > axes + 1 else 1
    return Use(space=Space(read=tuple(x.shape[-axes:]), given=tuple(out.shape[-axes:])), images=images)


def _moments(
    model: nn.Module,
    calibration: Calibration,
    layers: dict[str, nn.Module],
    seed: int,
) -> dict[str, tuple[Tensor, Tensor, int]]:
    draw = torch.Generator().manual_seed(seed)
    grams: dict[str, Gram] = {}

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            rows = _rows(layer, args[0], out, draw)
            gram = grams.setdefault(name, Gram(name, rows.shape[1], 0))
            gram.update(rows, rows[:, :0])

        return hook

    wanted = {layer: look(name) for name, layer in layers.items() if plain(layer) is None}
    _run(model, batches_of(calibration), wanted)
    return {name: (*_centred(gram), gram.rows) for name, gram in grams.items()}


def _rows(layer: nn.Module, x: Tensor, out: Tensor, draw: torch.Generator) -> Tensor:
    """What single outputs are computed from: ``(rows, in * taps)``, a sample where there are many."""
    if not isinstance(layer, CONVOLUTIONS):
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) > _SAMPLE:
            rows = rows[torch.randperm(len(rows), generator=draw)[:_SAMPLE].to(x.device)]
        return rows
    places = out[0, 0].numel()
    share = max(1, _SAMPLE // len(x))
    at = torch.randperm(places, generator=draw)[:share].to(x.device) if places > share else None
    assert not isinstance(layer.padding, str)
    return patches(
        x, layer.kernel_size, stride=layer.stride, padding=layer.padding, dilation=layer.dilation, at=at
    )


def _centred(gram: Gram) -> tuple[Tensor, Tensor]:
    mean = gram.xx[:-1, -1] / gram.rows
    return gram.xx[:-1, :-1] / gram.rows - mean[:, None] * mean[None], mean


def _run(
    model: nn.Module,
    batches: Iterable[Batch],
    hooks: dict[nn.Module, Callable[[nn.Module, Any, Any], None]],
) -> None:
    where = device_of(model)
    handles = [layer.register_forward_hook(hook) for layer, hook in hooks.items()]
    try:
        with evaluating(model), torch.no_grad():
            for batch in batches:
                model(*(x.to(where, copy=True) for x in batch))  # it may write into them
    finally:
        for handle in handles:
            handle.remove()
