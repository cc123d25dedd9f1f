"""One thing quantized at a time."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from gracile import quantize
from gracile.errors import BadArgument
from gracile.nn import QuantizedBias, QuantizedWeight
from gracile.observe import divergence
from gracile.quantize import Bits, Nearest, Scheme, ptq, sensitivity
from gracile.records import BitCurve, QuantSensitivity, from_json, to_json
from gracile.testing import net
from gracile.testing.contract import fingerprint


def data(count: int = 16) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_layers_curve_is_that_of_the_model_with_only_it_quantized() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 5))
    x = data()
    table = sensitivity(model, (x[:1],), [x], bits=(8, 3), images=8)
    few = Scheme(weight_bits=3, activation_bits=3, sum_bits=3, ends=Bits(), rounding=Nearest())
    quantized = ptq(model, (x[:1],), [x], few)
    with torch.no_grad():
        wanted = model(x[:8])
        for curve in table.weights:
            alone = copy.deepcopy(model)
            layer = alone.get_submodule(curve.name)
            modules = list(quantized.modules())
            layer.weight.copy_(
                next(m() for m in modules if isinstance(m, QuantizedWeight) and m.name == curve.name)
            )
            layer.bias.copy_(
                next(m() for m in modules if isinstance(m, QuantizedBias) and m.name == curve.name)
            )
            assert dict(curve.points)[3] == pytest.approx(divergence(wanted, alone(x[:8])), rel=1e-3)
            assert curve.values == layer.weight.numel()
        quantizer = quantized.network.get_submodule(f"quantizers.{table.edges[1].name}")
        behind = model[4](model[3](model[2](quantizer(torch.relu(model[0](x[:8]))))))
        assert dict(table.edges[1].points)[3] == pytest.approx(divergence(wanted, behind), rel=1e-3)
        first = quantized.network.get_submodule(f"quantizers.{table.edges[0].name}")
        assert dict(table.edges[0].points)[3] == pytest.approx(
            divergence(wanted, model(first(x[:8]))), rel=1e-3
        )
    assert [curve.readers for curve in table.edges] == [("0",), ("2",), ("4",)]
    assert table.edges[1].values == 4 * 36


def test_few_bits_move_outputs_more() -> None:
    model, inputs = net("residual")
    before = fingerprint(model)
    table = sensitivity(model, inputs, [data(24), data(8)], bits=(8, 2), images=28)
    assert fingerprint(model) == before
    assert table.images == 28
    for curve in (*table.weights, *table.edges):
        assert 0 <= curve.at(8) < curve.at(2)
    assert {c.name for c in table.weights} == {n for n, m in model.named_modules()
                                               if isinstance(m, nn.Conv2d | nn.Linear)}  # fmt: skip
    assert from_json(QuantSensitivity, to_json(table)) == table
    assert "weights fc: 8: " in str(table)


def test_a_cached_table_is_read_only_for_the_same_analysis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = net("plain")
    cache, told = tmp_path / "table.json", []

    def run(scheme: Scheme, bits: tuple[int, ...] = (4,)) -> QuantSensitivity:
        return sensitivity(model, inputs, [data()], scheme, bits=bits, images=4, cache=cache,
                           on_try=lambda done, of: told.append((done, of)))  # fmt: skip

    first = run(Scheme())
    assert told[-1][0] == told[-1][1] == len(told)
    told.clear()
    assert run(Scheme(weight_bits=3)) == first  # bits of the scheme are not used
    assert told == []
    other = run(Scheme(weight_range="minmax"))
    assert told
    assert other.key != first.key
    with torch.no_grad():
        model.fc1.weight[0, 0] += 1
    assert run(Scheme(weight_range="minmax")).key != other.key
    cache.write_text("{")
    assert run(Scheme()).weights


def test_curves_do_not_fall_where_bits_do() -> None:
    curve = BitCurve(name="fc", values=1, points=((8, 0.3), (4, 0.1), (2, 0.9)))
    assert [curve.at(b) for b in (8, 5, 4, 3, 2)] == [0.3, 0.3, 0.3, 0.9, 0.9]


def test_wrong_use_is_an_error() -> None:
    model, inputs = net("plain")
    with pytest.raises(BadArgument, match="at least one input"):
        quantize.sensitivity(model, inputs, [])
    with pytest.raises(BadArgument, match="numbers that fall"):
        quantize.sensitivity(model, inputs, [data()], bits=(2, 8))
    with pytest.raises(BadArgument, match="at least 1"):
        quantize.sensitivity(model, inputs, [data()], images=0)


@pytest.mark.parametrize("dynamic", [False, True])
def test_biases_count_where_ranges_are_found_at_run_time_too(dynamic: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    model[0].bias.data += 2
    table = sensitivity(model, (data()[:1],), [data()], Scheme(dynamic=dynamic), bits=(8,))
    assert all(curve.at(8) < 1e-4 for curve in table.weights)


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 2, 3)

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        return {"maps": (self.a(x), self.b(x)), "count": torch.ones(1, dtype=torch.int64)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_outputs_of_a_model_count(dtype: torch.dtype) -> None:
    table = sensitivity(Several().to(dtype), (data()[:1].to(dtype),), [data().to(dtype)], bits=(8, 2))
    assert {curve.name for curve in table.weights} == {"a", "b"}
    assert all(curve.at(2) > 10 * curve.at(8) > 0 for curve in table.weights)
