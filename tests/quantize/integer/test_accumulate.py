"""Sums of products against loops in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from gracile.errors import BadArgument
from gracile.quantize.integer.accumulate import Accumulator, accumulate, products
from gracile.quantize.lower import lower


def call(layer: nn.Module, shape: tuple[int, ...]) -> fx.Node:
    """The call of a layer in its captured graph."""
    graph = lower(layer, (torch.zeros(2, *shape),)).graph
    return next(n for n in graph.nodes if n.op == "call_function")


def loops(x: Tensor, weight: Tensor, bias: Tensor, layer: nn.Conv2d, low: int, high: int) -> np.ndarray:
    """A convolution one product at a time, sums kept between ``low`` and ``high``."""
    (n, c, h, w), (out, per, kh, kw) = x.shape, weight.shape
    (ph, pw), (sh, sw), (dh, dw) = layer.padding, layer.stride, layer.dilation
    wide = np.zeros((n, c, h + 2 * ph, w + 2 * pw), np.int64)
    wide[:, :, ph : ph + h, pw : pw + w] = x.numpy()
    rows, columns = (h + 2 * ph - dh * (kh - 1) - 1) // sh + 1, (w + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    found = np.zeros((n, out, rows, columns), np.int64) + bias.numpy().reshape(1, -1, 1, 1)
    found = found.clip(low, high)
    for o in range(out):
        first = o // (out // layer.groups) * per
        for i in range(per):
            for a in range(kh):
                for b in range(kw):
                    seen = wide[:, first + i, a * dh :: sh, b * dw :: sw][:, :rows, :columns]
                    step = found[:, o] + int(weight[o, i, a, b]) * seen
                    found[:, o] = step.clip(low, high)
    return found


KINDS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "groups": 2},
    {"kernel_size": (3, 1), "padding": (2, 0), "dilation": 2, "groups": 4},
    {"kernel_size": 2, "stride": (1, 2), "padding": (1, 0), "groups": 2},
]
FAR = 2**60


def numbers(seed: int, layer: nn.Conv2d) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    x = torch.randint(-255, 256, (2, 4, 5, 6), generator=random)
    weight = torch.randint(-127, 128, tuple(layer.weight.shape), generator=random)
    bias = torch.randint(-(2**18), 2**18, (len(weight),), generator=random)
    return x, weight, bias


@pytest.mark.parametrize("kind", KINDS, ids=str)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**20))
def test_products_are_those_of_loops_in_int64(kind: dict[str, int], seed: int) -> None:
    layer = nn.Conv2d(4, 8, **kind)
    x, weight, bias = numbers(seed, layer)
    node = call(layer, (4, 5, 6))
    wanted = loops(x, weight, bias, layer, -FAR, FAR)
    assert np.array_equal(products(x, weight, bias, node).numpy(), wanted)
    assert np.array_equal(accumulate(x, weight, bias, node, Accumulator()).numpy(), wanted)
    wrapped = accumulate(x, weight, bias, node, Accumulator(bits=16)).numpy()
    assert np.array_equal(wrapped, wanted.astype(np.int16))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_saturating_sums_stop_at_every_addition(kind: dict[str, int]) -> None:
    layer = nn.Conv2d(4, 8, **kind)
    x, weight, bias = numbers(1, layer)
    node = call(layer, (4, 5, 6))
    wanted = loops(x, weight, bias // 16, layer, -(2**15), 2**15 - 1)
    found = accumulate(x, weight, bias // 16, node, Accumulator(bits=16, overflow="saturate"))
    assert np.array_equal(found.numpy(), wanted)
    plain = products(x, weight, bias // 16, node).clamp(-(2**15), 2**15 - 1)
    assert not torch.equal(found, plain)  # stopping on the way is not stopping at the end


def test_other_ranks_and_linear_layers_saturate_too() -> None:
    random = torch.Generator().manual_seed(0)
    for layer, shape in (
        (nn.Conv1d(2, 4, 3), (2, 9)),
        (nn.Conv3d(1, 2, 2), (1, 3, 4, 3)),
        (nn.Linear(6, 3), (6,)),
    ):
        x = torch.randint(-255, 256, (2, *shape), generator=random)
        weight = torch.randint(-127, 128, tuple(layer.weight.shape), generator=random)
        node = call(layer, shape)
        wide = Accumulator(bits=32, overflow="saturate")
        assert torch.equal(accumulate(x, weight, None, node, wide), products(x, weight, None, node))
        narrow = accumulate(x, weight, None, node, Accumulator(bits=14, overflow="saturate"))
        assert narrow.shape == products(x, weight, None, node).shape
        assert -(2**13) <= int(narrow.min()) < int(narrow.max()) <= 2**13 - 1


@given(st.integers(8, 32), st.integers(-(2**40), 2**40))
def test_wrapping_keeps_the_lowest_bits(bits: int, value: int) -> None:
    found = int(Accumulator(bits=bits).fit(torch.tensor(value)))
    low, high = Accumulator(bits=bits).limits
    assert low <= found <= high
    assert (found - value) % 2**bits == 0


def test_what_is_no_accumulator_is_refused() -> None:
    with pytest.raises(BadArgument, match="8 to 32 bits"):
        Accumulator(bits=33)
    with pytest.raises(BadArgument, match="wrap or saturate"):
        Accumulator(overflow="explode")  # type: ignore[arg-type]
