"""Layers that take in ``v' = a v + c`` of the values they give or read, and still compute the same.

Source: Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam and Kalenichenko, "Quantization and training of neural
networks for efficient integer-arithmetic-only inference", CVPR 2018, arXiv 1712.05877, equation 14 (outputs);
on inputs, ``W v + b = (W / a) v' + b - (W / a) c``. Padding with zeros stands for other zeros then, so where
a kernel reads it a map makes up for what it would have read (:class:`gracile.nn.BorderMap`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.nn import BorderMap, attach_, parts_of
from gracile.records import FoldMove, FoldPart
from gracile.surgery import NormNumbers

BatchNorm = nn.modules.batchnorm._BatchNorm
Convolution = nn.modules.conv._ConvNd
SMALLEST = 1e-6  # of the largest scale; below it dividing loses the channel


@torch.no_grad()
def numbers_of(module: nn.Module, move: FoldMove) -> tuple[Tensor, Tensor]:
    """Scale and shift of each channel ``(channels,)`` of a norm, or of a module that scales and shifts.

    Example:
        >>> norm = nn.BatchNorm1d(2, eps=0.0).eval()
        >>> norm.running_mean.fill_(3.0); norm.running_var.fill_(4.0)
        tensor([3., 3.])
        tensor([4., 4.])
        >>> a, c = numbers_of(norm, FoldMove(norm="n", parts=(), channels=2))
        >>> a.tolist(), c.tolist()
        ([0.5, 0.5], [-1.5, -1.5])
    """
    if isinstance(module, BatchNorm):
        assert module.running_mean is not None
        assert module.running_var is not None
        numbers = NormNumbers(
            mean=module.running_mean, var=module.running_var, eps=module.eps,
            gamma=module.weight, beta=module.bias,
        )  # fmt: skip
        return numbers.slope, numbers.shift - numbers.mean.double() * numbers.slope
    exact = copy.deepcopy(module).double().eval()
    like = next(iter(exact.parameters()))
    shape = [move.channels if axis == move.axis else 1 for axis in range(move.rank)]
    at_zero, at_one = exact(like.new_zeros(shape)), exact(like.new_ones(shape))
    if at_zero.shape != tuple(shape):
        raise BadArgument(move.norm, wanted="one scale and shift a channel", found="others",
                          do="Make the plan anew for this model.")  # fmt: skip
    return (at_one - at_zero).flatten(), at_zero.flatten()


def divides(part: FoldPart) -> bool:
    """Whether a part needs the inverse of the scale."""
    return part.undo == (part.side == "out")


@torch.no_grad()
def absorb_(model: nn.Module, part: FoldPart, scale: Tensor, shift: Tensor) -> None:
    """Change a layer of ``model`` as ``part`` says, in place.

    Args:
        model: Holds the layer.
        part: Which channels, at which side.
        scale: ``a`` of each channel of the norm, float64.
        shift: ``c`` of each channel of the norm, float64.

    Raises:
        BadArgument: The layer has no such channels, or a scale is too near zero to divide by.

    Example:
        >>> net, x = nn.Sequential(nn.Linear(2, 1)), torch.tensor([[3.0, 5.0]])
        >>> a, c = torch.tensor([2.0, 4.0]).double(), torch.tensor([1.0, 0.0]).double()
        >>> wanted = net(x)
        >>> absorb_(net, FoldPart(layer="0", side="in", start=0, count=2, channel=0), a, c)
        >>> torch.allclose(net((a * x + c).float()), wanted)
        True
    """
    prepare_(model, part)
    layer = model.get_submodule(part.layer)
    weight = layer.get_parameter("weight")
    own = part.channel + torch.arange(part.count, device=scale.device) // part.repeat
    a, c = (t[own].to(weight.device) for t in (scale, shift))
    if divides(part) and float(a.abs().min()) <= SMALLEST * float(scale.abs().max()):
        raise BadArgument(part.layer, wanted="scales that can be divided by", found="one near zero",
                          do="Make the plan anew for this model.")  # fmt: skip
    width = _width(layer, part.side)
    place = slice(part.start, part.start + part.count)
    factor, moved = scale.new_ones(width, device=weight.device), scale.new_zeros(width, device=weight.device)
    factor[place] = 1 / a if divides(part) else a
    moved[place] = part.share * c
    if isinstance(layer, BatchNorm):
        _norm(layer, part, factor, moved)
    elif part.side == "out":
        _outputs(layer, factor, -moved * factor if part.undo else moved)
    else:
        _inputs(layer, part, factor, moved)


def prepare_(model: nn.Module, part: FoldPart) -> None:
    """Give a layer what it needs to take ``part``: a bias, a norm's parameters, a border map of zeros."""
    layer = model.get_submodule(part.layer)
    fits = isinstance(layer, nn.Linear | Convolution | BatchNorm)
    if not fits or part.start + part.count > _width(layer, part.side):
        raise BadArgument(
            part.layer,
            wanted=f"a layer with at least {part.start + part.count} {part.side}puts",
            found=type(layer).__name__,
            do="Make the plan anew for this model.",
        )
    if isinstance(layer, BatchNorm):
        give_affine_(layer)
    elif part.share:
        give_bias_(layer)
    if part.space:
        assert isinstance(layer, Convolution)
        ends = border_ends(layer, part.space)
        weight = layer.get_parameter("weight")
        rows = [before + 1 + after for before, after in ends]
        _hang(layer, BorderMap(weight.new_zeros(layer.out_channels, *rows), ends))


def give_bias_(layer: nn.Module) -> None:
    """Give a layer a bias of zeros where it has none."""
    weight = layer.get_parameter("weight")
    if layer._parameters.get("bias") is None:
        outputs = layer.out_channels if isinstance(layer, Convolution) else weight.shape[0]
        layer.bias = nn.Parameter(weight.new_zeros(int(outputs)), requires_grad=weight.requires_grad)


def give_affine_(norm: BatchNorm) -> None:
    """Give a norm its scale and shift where it has none."""
    if norm._parameters.get("weight") is None:
        assert norm.running_var is not None
        norm.weight = nn.Parameter(torch.ones_like(norm.running_var))
        norm.bias = nn.Parameter(torch.zeros_like(norm.running_var))
        norm.affine = True


def takes_shift(layer: nn.Module) -> bool:
    """Whether what a shift of its inputs gives is the same at every position away from padding."""
    if not isinstance(layer, Convolution) or not layer.transposed:
        return True
    one = all(k == 1 for k in layer.kernel_size) and all(s == 1 for s in layer.stride)
    return one and not any(layer.output_padding)


def pads_zeros(layer: nn.Module) -> bool:
    """Whether a convolution reads zeros around its image."""
    if not isinstance(layer, Convolution) or layer.padding_mode != "zeros" or layer.transposed:
        return False
    return any(_before(layer, axis) or layer.padding == "same" for axis in range(len(layer.kernel_size)))


def border_ends(layer: Convolution, space: Sequence[int]) -> list[tuple[int, int]]:
    """Rows of outputs at the start and end of each axis whose kernel reads padding.

    Example:
        >>> border_ends(nn.Conv2d(1, 1, 5, padding=2, stride=2), (9, 10))
        [(1, 1), (1, 1)]
    """
    found = []
    for axis, size in enumerate(space):
        step, reach = layer.stride[axis], layer.dilation[axis] * (layer.kernel_size[axis] - 1)
        before = _before(layer, axis)
        total = reach if isinstance(layer.padding, str) else 2 * before
        given = (size + total - reach - 1) // step + 1
        reads = [(o * step - before, o * step - before + reach) for o in range(given)]
        first = sum(low < 0 for low, _ in reads)
        last = sum(high >= size for _, high in reads)
        found.append((first, last) if first + last < given else (given - 1, 0))
    return found


def _before(layer: Convolution, axis: int) -> int:
    """Zeros at the start of one axis; of an odd number, PyTorch puts the larger half at the end."""
    if isinstance(layer.padding, str):
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
        return int(reach // 2) if layer.padding == "same" else 0
    return int(layer.padding[axis])


def _width(layer: nn.Module, side: str) -> int:
    if isinstance(layer, Convolution):
        return layer.out_channels if side == "out" else layer.in_channels
    if isinstance(layer, nn.Linear):
        return layer.out_features if side == "out" else layer.in_features
    return int(getattr(layer, "num_features", 0))


def _norm(layer: BatchNorm, part: FoldPart, factor: Tensor, moved: Tensor) -> None:
    weight, bias, mean = layer.weight, layer.bias, layer.running_mean
    assert mean is not None
    if part.side == "out":
        weight.copy_(weight.double() * factor)
        bias.copy_(bias.double() * factor + (-moved * factor if part.undo else moved))
    else:
        weight.copy_(weight.double() * factor)
        old = mean.double()
        mean.copy_((old - moved) / factor if part.undo else old / factor + moved)


def _outputs(layer: nn.Module, factor: Tensor, moved: Tensor) -> None:
    weight, bias = layer.get_parameter("weight"), layer._parameters.get("bias")
    weight.copy_(weight.double() * _over(layer, factor, "out"))
    if bias is not None:
        bias.copy_(bias.double() * factor + moved)
    border = parts_of(layer).get("border")
    if isinstance(border, BorderMap):
        rows = [1] * (border.table.dim() - 1)
        border.table.copy_(border.table.double() * factor.view(-1, *rows))


def _inputs(layer: nn.Module, part: FoldPart, factor: Tensor, moved: Tensor) -> None:
    """``W v = W a v' + W c`` for ``v' = (v - c) / a``, else ``W v = (W / a) v' - (W / a) c``."""
    weight = layer.get_parameter("weight")
    old = weight.double().clone()
    new = old * _over(layer, factor, "in")
    weight.copy_(new)
    if not part.share:
        return
    used = old if part.undo else -new
    bias = layer.get_parameter("bias")
    everywhere = _sums(layer, used * _over(layer, moved, "in"))
    bias.copy_(bias.double() + everywhere)
    if part.space:
        assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        image = moved.view(1, -1, *[1] * len(part.space)).expand(1, -1, *part.space)
        full = layer._conv_forward(image, used, None)[0] - everywhere.view(-1, *[1] * len(part.space))
        ends = border_ends(layer, part.space)
        for axis, (before, after) in enumerate(ends, start=1):
            size = full.shape[axis]
            rows = torch.tensor([*range(before + 1), *range(size - after, size)], device=full.device)
            full = full.index_select(axis, rows)
        _hang(layer, BorderMap(full.to(weight), ends))


def _hang(layer: nn.Module, border: BorderMap) -> None:
    held = parts_of(layer).get("border")
    attach_(layer, "border", held.plus(border) if isinstance(held, BorderMap) else border)


def _over(layer: nn.Module, vector: Tensor, side: str) -> Tensor:
    """A vector over the outputs or inputs of a layer, in a shape that meets its weight."""
    weight = layer.get_parameter("weight")
    rest = [1] * (weight.dim() - 2)
    groups = layer.groups if isinstance(layer, Convolution) else 1
    transposed = isinstance(layer, Convolution) and layer.transposed
    if (side == "in") == transposed:  # the first axis of the weight
        return vector.view(-1, 1, *rest)
    rows = weight.shape[0] // groups
    return vector.view(groups, 1, -1).expand(-1, rows, -1).reshape(weight.shape[0], -1, *rest)


def _sums(layer: nn.Module, weight: Tensor) -> Tensor:
    """Sum over all inputs that each output reads."""
    if isinstance(layer, Convolution) and layer.transposed:
        inputs = weight.shape[0] // layer.groups
        return weight.flatten(2).sum(2).view(layer.groups, inputs, -1).sum(1).flatten()
    return weight.flatten(1).sum(1)
