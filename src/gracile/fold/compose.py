"""Two convolutions, or linear layers, in a row as one.

Source: the reference documents, Yvinec 2022, section 4 (kernel and stride of the joined convolution); as a
transform of trained networks Ding, Zhang, Han and Ding, "Diverse branch block", CVPR 2021, arXiv 2103.13425,
transform III. The product of two linear maps is one linear map:

    k = (k1 - 1) d1 + (k2 - 1) d2 s1 + 1,   s = s1 s2,   p = p1 + p2 s1,
    W[o, i, a d1 + b d2 s1] += sum_m W2[o, m, b] W1[m, i, a],   b = b2 + sum_mb W2[o, m, b] b1[m].

Padding of the second is exact in two cases: there is none, or the first has a kernel of 1, no padding and no
bias, so that it gives zeros where it would read zeros. In all others the joined layer would read, around the
border, outputs of the first that the second replaces by zeros: refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def refuses(first: nn.Module, second: nn.Module) -> str | None:
    """Why two layers, the second reading all that the first gives, cannot become one exactly.

    Example:
        >>> refuses(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, padding=1))
        'it pads outputs of a layer that reads further than one position'
        >>> refuses(nn.Linear(3, 4), nn.Linear(4, 5)) is None
        True
    """
    if isinstance(first, nn.Linear) and isinstance(second, nn.Linear):
        return None
    if isinstance(first, nn.Linear) or not isinstance(first, CONVOLUTIONS):
        return f"{type(first).__name__} before {type(second).__name__}"
    if not isinstance(second, CONVOLUTIONS) or second.weight.dim() != first.weight.dim():
        return f"{type(first).__name__} before {type(second).__name__}"
    for layer in (first, second):
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            mode = layer.padding if isinstance(layer.padding, str) else layer.padding_mode
            return f"its padding is {mode!r}"
    if not any(second.padding):
        return None
    if prod(first.kernel_size) != 1 or any(first.padding):
        return "it pads outputs of a layer that reads further than one position"
    if first.bias is not None and bool(first.bias.detach().abs().max() > 0):
        return "it pads outputs of a layer that has a bias with zeros"
    return None


@torch.no_grad()
def joined(first: nn.Module, second: nn.Module) -> nn.Module:
    """One layer that computes ``second(first(x))`` for every ``x``; the two are left as they are.

    Args:
        first: Convolution of any rank, stride, dilation and groups, or linear layer.
        second: The same kind.

    Returns:
        A layer of the same kind. Groups are kept where both have the same; otherwise it has one group.

    Example:
        >>> a, b = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 5, 3, dilation=2)
        >>> one, x = joined(a, b), torch.randn(1, 3, 17, 17)
        >>> one.kernel_size, one.stride, torch.allclose(one(x), b(a(x)), atol=1e-5)
        ((11, 11), (2, 2), True)
    """
    if isinstance(first, nn.Linear) and isinstance(second, nn.Linear):
        flat = nn.Linear(first.in_features, second.out_features, bias=_biased(first, second), device="meta")
        return _filled(
            flat,
            second.weight.double() @ first.weight.double(),
            _through(first, second.weight),
            first,
            second,
        )
    assert isinstance(first, CONVOLUTIONS)
    assert isinstance(second, CONVOLUTIONS)
    groups = first.groups if first.groups == second.groups else 1
    w1, w2 = _dense(first, groups), _dense(second, groups)  # (groups, out, in, *kernel)
    dilation = [int(d) for d in first.dilation]
    step = [int(d) * int(s) for d, s in zip(second.dilation, first.stride, strict=True)]
    size = [
        (k1 - 1) * d1 + (k2 - 1) * d2 + 1
        for k1, d1, k2, d2 in zip(first.kernel_size, dilation, second.kernel_size, step, strict=True)
    ]
    weight = w1.new_zeros(groups, w2.shape[1], w1.shape[2], *size)
    for a in taps(first):
        for b in taps(second):
            at = index(i * d + j * e for i, d, j, e in zip(a, dilation, b, step, strict=True))
            weight[at] += w2[index(b)] @ w1[index(a)]
    made = type(first)(
        first.in_channels,
        second.out_channels,
        tuple(size),  # type: ignore[arg-type]
        stride=tuple(s * t for s, t in zip(first.stride, second.stride, strict=True)),  # type: ignore[arg-type]
        padding=tuple(  # type: ignore[arg-type]
            p + q * int(s) for p, q, s in zip(zeros(first), zeros(second), first.stride, strict=True)
        ),
        groups=groups,
        bias=_biased(first, second),
        device="meta",
    )
    summed = w2.flatten(3).sum(3)  # (groups, out, middle)
    return _filled(made, weight.flatten(0, 1), _through(first, summed), first, second)


def as_kernel(second: nn.Linear, first: nn.Module, space: Sequence[int]) -> nn.Module:
    """A linear layer that reads a convolution's image as one vector, as a convolution of that image.

    Args:
        second: Reads ``channels * positions`` entries, position by position within each channel.
        first: The convolution before it.
        space: Size of the image between them; the kernel has that size, and one position is left.

    Example:
        >>> conv, linear, x = nn.Conv2d(3, 4, 3), nn.Linear(4 * 25, 10), torch.randn(2, 3, 7, 7)
        >>> one = joined(conv, as_kernel(linear, conv, (5, 5)))
        >>> torch.allclose(one(x).flatten(1), linear(conv(x).flatten(1)), atol=1e-5)
        True
    """
    assert isinstance(first, CONVOLUTIONS)
    made = type(first)(first.out_channels, second.out_features, tuple(space), device="meta")  # type: ignore[arg-type]
    weight = second.weight.detach().reshape(second.out_features, first.out_channels, *space)
    made.weight = nn.Parameter(weight)
    made.bias = None if second.bias is None else nn.Parameter(second.bias.detach())
    return made


def _through(first: nn.Module, weight: Tensor) -> Tensor | None:
    """What the first layer's bias adds behind a second of this weight, ``(out, in)`` or by group."""
    bias = first._parameters.get("bias")
    if bias is None:
        return None
    blocks = weight if weight.dim() == 3 else weight[None]
    return (blocks.double() @ bias.double().reshape(len(blocks), -1, 1)).reshape(-1)


def taps(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[tuple[int, ...]]:
    """Places in the kernel."""
    return list(product(*[range(int(k)) for k in layer.kernel_size]))


def index(place: Iterable[int]) -> Any:
    """All leading axes, at one place in the kernel."""
    return (..., *place)


def zeros(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[int]:
    """Zeros on each side along each axis."""
    assert not isinstance(layer.padding, str)
    return [int(p) for p in layer.padding]


def _dense(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, groups: int) -> Tensor:
    """The weight as ``(groups, out, in, *kernel)``."""
    weight = spread(layer, groups)
    return weight.reshape(groups, -1, *weight.shape[1:])


def spread(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, groups: int) -> Tensor:
    """The weight ``(out, in / groups, *kernel)`` in float64 for so many groups: its own number, or one."""
    weight = layer.weight.double()
    if groups == layer.groups:
        return weight
    found = weight.new_zeros(layer.out_channels, layer.in_channels, *weight.shape[2:])
    rows, columns = layer.out_channels // layer.groups, weight.shape[1]
    for g in range(layer.groups):
        mine = slice(g * rows, (g + 1) * rows)
        found[mine, g * columns : (g + 1) * columns] = weight[mine]
    return found


def _biased(first: nn.Module, second: nn.Module) -> bool:
    return any(layer._parameters.get("bias") is not None for layer in (first, second))


def _filled(
    one: nn.Module, weight: Tensor, shift: Tensor | None, first: nn.Module, second: nn.Module
) -> nn.Module:
    like = first.get_parameter("weight")
    assert isinstance(one, (*CONVOLUTIONS, nn.Linear))
    one.weight = nn.Parameter(weight.to(like).contiguous(), requires_grad=like.requires_grad)
    if one.bias is not None:
        total = torch.zeros(weight.shape[0], dtype=torch.float64, device=like.device)
        total = total if shift is None else total + shift
        own = second._parameters.get("bias")
        total = total if own is None else total + own.double()
        one.bias = nn.Parameter(total.to(like), requires_grad=like.requires_grad)
    return one.train(first.training)


def macs(layer: nn.Module, given: Sequence[int]) -> int:
    """Multiply-adds of a layer that gives outputs at so many positions along each axis.

    Example:
        >>> macs(nn.Conv2d(3, 4, 3), (5, 5))
        2700
    """
    return layer.get_parameter("weight").numel() * prod(given)
