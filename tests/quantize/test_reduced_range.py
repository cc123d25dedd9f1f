"""Half the range of 8 bits: which layers take it, and the proof that no pair of products overflows."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gracile.nn import QuantizedModel
from gracile.quantize import Bits, PerTensor, Scheme, may_overflow, ptq, qat, reduced_range
from gracile.quantize.reduced_range import _beyond, reduces
from gracile.testing import net

rows = st.lists(st.lists(st.integers(-127, 127), min_size=3, max_size=3), min_size=1, max_size=4)


@given(rows, st.sampled_from([1, 15, 127, 128, 255]))
def test_channels_beyond_are_those_with_such_a_pair(integers: list[list[int]], largest: int) -> None:
    """Against every pair of weights with every pair of extreme inputs."""

    def overflows(row: list[int]) -> bool:
        sums = [a * x + b * y for a, b in combinations(row, 2) for x in (0, largest) for y in (0, largest)]
        return max(sums) > 32767 or min(sums) < -32768

    found = _beyond(torch.tensor(integers, dtype=torch.int8), largest)
    assert found == sum(overflows(row) for row in integers)


def test_a_lone_product_has_no_pair() -> None:
    assert _beyond(torch.full((4, 1, 1), 127, dtype=torch.int8), 255) == 0


def _quantized(name: str = "residual", **options: object) -> QuantizedModel:
    model, inputs = net(name)
    data = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return ptq(model, inputs, [data], Scheme(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [
    {}, {"weight_symmetric": False}, {"weight_granularity": PerTensor()}, {"activation_symmetric": True},
    {"dynamic": True}, {"rounding": "adaround"}, {"weight_bits": 4, "rounding": "least_squares"},
    {"weight_range": "minmax", "rounding": "nearest"},
])  # fmt: skip
def test_nothing_can_overflow_in_half_the_range(options: dict[str, object]) -> None:
    quantized = _quantized(reduce_range=True, **options)
    assert may_overflow(quantized) == ()
    widest = [w for w in quantized.plan.weights if w.bits == 8]
    assert widest
    assert all(-64 <= w.qmin <= -63 and w.qmax == 63 for w in widest)
    assert quantized.plan.reduced == tuple(w.layer for w in widest)


def test_the_full_range_can_and_says_where() -> None:
    quantized = _quantized(reduce_range=False, weight_range="minmax", rounding="nearest")
    assert all(w.qmax == 127 for w in quantized.plan.weights)
    assert quantized.plan.reduced == ()
    found = may_overflow(quantized)
    assert {one.layer for one in found} <= {w.layer for w in quantized.plan.weights}
    assert found
    assert all(1 <= one.channels <= one.of for one in found)


def test_layers_that_read_fewer_bits_keep_the_full_range() -> None:
    quantized = _quantized(reduce_range=True, activation_bits=7, sum_bits=7, ends=Bits(), rounding="nearest")
    assert all(w.qmax == 127 for w in quantized.plan.weights)
    assert may_overflow(quantized) == ()


def test_two_layers_that_read_one_value_read_its_bits() -> None:
    """One of them asks for 4 bits and the other for 8, so both read 8."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.one, self.two = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x).relu()
            return torch.cat([self.one(x), self.two(x)], 1)

    images = torch.randn(8, 3, 6, 6)
    scheme = Scheme(ends=Bits(), layers={"one": Bits(activations=4)}, reduce_range=True, rounding="nearest")
    quantized = ptq(Branches().eval(), (images[:1],), [images], scheme)
    assert {w.layer: w.qmax for w in quantized.plan.weights} == {"first": 63, "one": 63, "two": 63}
    assert may_overflow(quantized) == ()


@pytest.mark.parametrize("bits", [4, 8])
def test_trained_weights_take_half_the_range_too(bits: int) -> None:
    model, inputs = net("residual")
    images = torch.randn(8, 3, 8, 8)
    scheme = qat.QatScheme(weight_bits=bits, reduce_range=True)
    trained = qat.prepare(model, inputs, [images], scheme).train()
    trained(images).square().mean().backward()
    deployed = trained.eval().convert()
    assert may_overflow(deployed) == ()
    assert {(w.bits, w.qmax) for w in deployed.plan.weights} == {(bits, 7 if bits == 4 else 63), (8, 63)}
    assert (deployed(images) - trained(images)).abs().max() < 1e-4


def test_little_is_lost() -> None:
    model, inputs = net("residual")
    data = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = model(data).detach()

    def error(**options: object) -> float:
        found = ptq(model, inputs, [data], Scheme(**options))(data).detach()  # type: ignore[arg-type]
        return float((found - exact).square().mean() / exact.var())

    full, half, four = (
        error(reduce_range=False),
        error(reduce_range=True),
        error(weight_bits=4, ends=Bits(), rounding="nearest"),
    )
    assert half < 6 * full
    assert half < 0.05 * four


@pytest.mark.parametrize("lacks", [False, True])
def test_without_a_word_the_processor_decides(monkeypatch: pytest.MonkeyPatch, lacks: bool) -> None:
    monkeypatch.setattr(reduced_range, "lacks_vnni", lambda: lacks)
    assert reduces(None) is lacks
    assert (reduces(True), reduces(False)) == (True, False)
    assert {w.qmax for w in _quantized().plan.weights} == {63 if lacks else 127}
