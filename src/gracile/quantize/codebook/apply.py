"""Weights of a model to a few shared values: the plan, and the model that follows it.

Source: Han, Mao and Dally, "Deep compression", ICLR 2016, arXiv 1510.00149, section 3; with calibration
images the values and who takes which keep each layer's output, see ``fit.py``.
"""

from __future__ import annotations

import base64
import copy
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from gracile.errors import BadArgument, NonFiniteError
from gracile.observe import Calibration
from gracile.records import CodebookPlan, ParamCodebook, Skipped

from ..calibration import float32_batches
from ..lower import lower
from ..rounding.least_squares import Inputs, watch_inputs
from ..units import Layer, find_units
from .fit import Fitted, fit_output, fit_values
from .kmeans import Start


@dataclass(frozen=True, kw_only=True)
class Clustering:
    """How values are found.

    Args:
        start: Where centroids begin: ``linear`` (evenly over the range, best in the source), ``density``
            (evenly
            over the sorted weights) or ``random``.
        layers: Bits by layer name or pattern (``layer1.*``); of several that fit the last counts.
        bias_bits: Bits of biases and other vectors of convolutions and linear layers; ``None`` leaves them.
        images: Calibration images whose activations are used.
        rounds: How often values, and who takes which, are found in turns.
        damping: Share of the mean input moment added to every input's.
        seed: For the random start.

    Example:
        >>> Clustering(layers={"fc": 8}).bits_of("fc", 4), Clustering().bits_of("fc", 4)
        (8, 4)
    """

    start: Start = "linear"
    layers: Mapping[str, int] = field(default_factory=dict)
    bias_bits: int | None = None
    images: int = 128
    rounds: int = 2
    damping: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.start not in ("linear", "density", "random"):
            raise BadArgument("start", wanted="linear, density or random", found=repr(self.start))
        given: dict[str, int | None] = {**self.layers, "bias_bits": self.bias_bits}
        for name, bits in given.items():
            if bits is not None and not (isinstance(bits, int) and 1 <= bits <= 8):
                raise BadArgument(name, wanted="a whole number from 1 to 8", found=repr(bits))
        if self.images < 1 or self.rounds < 1 or not self.damping > 0:
            found = f"{self.images=}, {self.rounds=}, {self.damping=}"
            raise BadArgument("clustering", wanted="images and rounds from 1, damping above 0", found=found)

    def bits_of(self, layer: str, bits: int) -> int:
        """Bits of a layer, ``bits`` where no pattern fits."""
        return next((b for p, b in reversed(list(self.layers.items())) if fnmatchcase(layer, p)), bits)


def codebook(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    bits: int = 4,
    *,
    calibration: Calibration | None = None,
    clustering: Clustering | None = None,
) -> tuple[nn.Module, CodebookPlan]:
    """Give the weights of each convolution and linear layer at most ``2 ** bits`` different values.

    Weights that are exactly zero stay so. With calibration images, layers keep their outputs; without,
    weights go to the nearest centroid of plain k-means.

    Args:
        model: Any module that ``torch.export`` captures; it is left as it was.
        inputs: Example inputs, any batch size.
        bits: 1 to 8.
        calibration: Batches of unlabelled inputs.
        clustering: Everything else.

    Returns:
        A model of the same class, and the plan that made it.

    Raises:
        BadArgument: ``bits`` lies outside 1..8, or ``calibration`` is empty.
        NonFiniteError: Weights hold NaN or infinity; the layer is named.
        CaptureError: ``torch.export`` refuses the model.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        >>> images = torch.randn(16, 3, 8, 8)
        >>> shared, plan = codebook(net, (images[:1],), bits=3, calibration=images.split(8))
        >>> [len(shared[i].weight.unique()) <= 8 for i in (0, 2)]
        [True, True]
    """
    how = clustering or Clustering()
    if not (isinstance(bits, int) and 1 <= bits <= 8):
        raise BadArgument("bits", wanted="a whole number from 1 to 8", found=repr(bits))
    graph = lower(model, inputs)
    units = find_units(graph)
    seen: dict[str, Inputs] = {}
    if calibration is not None:
        batches = list(float32_batches(calibration, model, len(inputs)))
        seen = watch_inputs(graph, units, batches, how.images)
    named = dict(model.named_parameters())
    found: dict[str, ParamCodebook] = {}
    for layer in units.layers:
        param = str(layer.weight.target)
        if param in named and param not in found:
            chosen = how.bits_of(layer.name, bits)
            found[param] = _layer(layer, named, chosen, seen.get(layer.name), how)
    found |= _vectors(found, named, how)
    why = "no convolution or linear layer reads it alone"
    left = tuple(Skipped(name, why) for name, p in named.items() if p.dim() > 1 and name not in found)
    plan = CodebookPlan(layers=tuple(found.values()), start=how.start, skipped=left)
    return apply_codebook(model, plan), plan


def apply_codebook(model: nn.Module, plan: CodebookPlan) -> nn.Module:
    """A copy of ``model`` whose weights take the values of ``plan``.

    Raises:
        BadArgument: The plan was made for another model.
    """
    model = copy.deepcopy(model)
    named = dict(model.named_parameters())
    for entry in plan.layers:
        parameter = named.get(entry.param)
        if parameter is None or tuple(parameter.shape) != entry.shape:
            found = "none" if parameter is None else f"shape {tuple(parameter.shape)}"
            raise BadArgument(entry.param, wanted=f"shape {entry.shape}, as in the plan", found=found)
    with torch.no_grad():
        for entry in plan.layers:
            if entry.bias and entry.bias in named:
                bias = named[entry.bias]
                bias.add_(torch.tensor(entry.shift, dtype=bias.dtype, device=bias.device))
        for entry in plan.layers:
            named[entry.param].copy_(values_of(entry))
    return model


def values_of(entry: ParamCodebook) -> Tensor:
    """The weights that an entry of a plan stands for, float32."""
    return torch.tensor(entry.centroids, dtype=torch.float32)[codes_of(entry)]


def codes_of(entry: ParamCodebook) -> Tensor:
    """Which centroid each weight takes, in the shape of the weights.

    Raises:
        BadArgument: The codes are not those of the shape.
    """
    try:
        raw = zlib.decompress(base64.b64decode(entry.codes, validate=True))
        codes = np.frombuffer(raw, dtype=np.uint8).reshape(entry.shape)
    except (ValueError, zlib.error) as error:
        raise BadArgument(entry.param, wanted="codes of its shape", found=str(error)[:80]) from error
    if codes.size and int(codes.max()) >= len(entry.centroids):
        raise BadArgument(entry.param, wanted=f"codes below {len(entry.centroids)}", found=str(codes.max()))
    return torch.from_numpy(codes.astype(np.int64))


def _layer(
    layer: Layer, named: Mapping[str, Tensor], bits: int, seen: Inputs | None, how: Clustering
) -> ParamCodebook:
    param = str(layer.weight.target)
    weight = named[param].detach()
    if not bool(weight.isfinite().all()):
        raise NonFiniteError(layer.name, wanted="finite weights", found="NaN or infinity")
    if seen is None:
        return entry_of(param, weight, bits, fit_values(weight, bits, how.start, how.seed))
    groups, inputs = seen.mean.shape
    bias = "" if layer.bias is None else str(layer.bias.target)
    # What a bias can make up for need not be kept: then only variations count.
    outer = seen.mean[:, :, None] * seen.mean[:, None, :]
    moments = seen.covariance if bias in named else seen.covariance + outer
    rows = weight.float().reshape(groups, -1, inputs)
    fitted = fit_output(rows, moments, bits, how.start, how.seed, rounds=how.rounds, damping=how.damping)
    if bias not in named:
        return entry_of(param, weight, bits, fitted)
    shift = ((rows - fitted.weight) @ seen.mean[:, :, None]).reshape(-1)
    return entry_of(param, weight, bits, fitted, bias, tuple(shift.tolist()))


def _vectors(
    done: Mapping[str, ParamCodebook], named: Mapping[str, Tensor], how: Clustering
) -> dict[str, ParamCodebook]:
    """Codebooks of biases, after what was shifted into them."""
    if how.bias_bits is None:
        return {}
    shifts = {entry.bias: entry.shift for entry in done.values() if entry.bias}
    found = {}
    for name, parameter in named.items():
        if parameter.dim() == 1:
            values = parameter.detach().float()
            if name in shifts:
                values = values + torch.tensor(shifts[name], device=values.device)
            fitted = fit_values(values, how.bias_bits, how.start, how.seed)
            found[name] = entry_of(name, parameter, how.bias_bits, fitted)
    return found


def entry_of(
    param: str, weight: Tensor, bits: int, fitted: Fitted, bias: str = "", shift: tuple[float, ...] = ()
) -> ParamCodebook:
    """A fit as an entry of a plan."""
    centroids = tuple(fitted.centroids.float().tolist())
    assert all(a < b for a, b in pairwise(centroids)), param
    raw = fitted.codes.cpu().numpy().astype(np.uint8).tobytes()
    return ParamCodebook(
        param=param,
        shape=tuple(weight.shape),
        bits=bits,
        centroids=centroids,
        codes=base64.b64encode(zlib.compress(raw, 6)).decode(),
        bias=bias,
        shift=shift,
        error=fitted.error,
    )
