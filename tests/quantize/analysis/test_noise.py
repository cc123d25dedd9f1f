"""Noise of layers, against the same sums by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gracile.errors import BadArgument
from gracile.nn import QuantizedModel
from gracile.quantize import Bits, Nearest, Scheme, noise, ptq
from gracile.quantize.analysis.noise import decibels
from gracile.records import QuantNoise, from_json, to_json
from gracile.testing import net

SCHEME = Scheme(rounding=Nearest())


def data(count: int = 16) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def made(scheme: Scheme = SCHEME) -> QuantizedModel:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 5))
    return ptq(model, (data(1),), [data()], scheme)


def db(wanted: torch.Tensor, found: torch.Tensor) -> float:
    signal, error = (np.square(a.detach().double().numpy()).sum() for a in (wanted, wanted - found))
    return float(10 * np.log10(signal / error))


@given(st.floats(1e-3, 1e3), st.floats(1e-6, 1e-2))
def test_decibels_are_logarithms_of_energies(signal: float, noise: float) -> None:
    assert decibels(signal, noise) == pytest.approx(10 * np.log10(signal / noise))
    assert decibels(0.0, noise) == -200
    assert decibels(signal, 0.0) == 200


def test_the_noise_of_every_layer_by_hand() -> None:
    quantized, x = made(), data(8)
    report = noise(quantized, x.split(4))
    first, relu, conv, output = report.edges
    assert (first.layer, relu.layer, conv.layer, output.layer) == ("", "0", "2", "4")
    float_net = quantized.float_graph
    with torch.no_grad():
        exact = _layer(quantized, 0, x)
        q_in, q_relu, q_conv = (
            quantized.network.get_submodule(f"quantizers.{e.edge}") for e in report.edges[:3]
        )
        assert first.own_db == first.accumulated_db == pytest.approx(db(x, q_in(x)), rel=1e-5)
        assert relu.own_db == pytest.approx(db(exact, q_relu(_stored(quantized, 0, x))), rel=1e-5)
        assert relu.accumulated_db == pytest.approx(
            db(exact, q_relu(_stored(quantized, 0, q_in(x)))), rel=1e-5
        )
        wanted = _layer(quantized, 1, exact)
        assert conv.own_db == pytest.approx(db(wanted, q_conv(_stored(quantized, 1, exact))), rel=1e-5)
        assert (
            report.output_db
            == output.accumulated_db
            == pytest.approx(db(float_net(x), quantized(x)), rel=1e-5)
        )
    weight = _weights(quantized)[0]
    assert relu.weight_db == pytest.approx(db(weight[0], weight[1]), rel=1e-5)
    assert (relu.low, relu.high) == (float(exact.min()), float(exact.max()))
    assert output.activation_bits is None
    assert output.grid_low is None


def _weights(quantized: QuantizedModel) -> list[tuple[torch.Tensor, torch.Tensor]]:
    wanted = [p for n, p in quantized.float_graph.named_parameters() if n.endswith("weight")]
    return list(
        zip(wanted, [m() for m in quantized.network.get_submodule("weights").children()], strict=True)
    )


def _layer(quantized: QuantizedModel, place: int, x: torch.Tensor) -> torch.Tensor:
    biases = [p for n, p in quantized.float_graph.named_parameters() if n.endswith("bias")]
    y = torch.conv2d(x, _weights(quantized)[place][0], biases[place])
    return torch.relu(y) if place == 0 else y


def _stored(quantized: QuantizedModel, place: int, x: torch.Tensor) -> torch.Tensor:
    bias = list(quantized.network.get_submodule("biases").children())[place]
    return torch.conv2d(x, _weights(quantized)[place][1], bias())


def test_noise_adds_up_and_few_bits_make_more() -> None:
    schemes = [Scheme(weight_bits=b, activation_bits=b, ends=Bits(), rounding=Nearest()) for b in (8, 3)]
    many, few = (noise(made(scheme), [data()]) for scheme in schemes)
    for one, other in zip(many.edges[:3], few.edges[:3], strict=True):
        assert one.own_db > other.own_db + 15
        assert (other.activation_bits, one.activation_bits) == (3, 8) or one.edge.startswith("conv")
    assert few.edges[2].accumulated_db < few.edges[2].own_db
    assert few.output_db < many.output_db - 15
    assert few.worst(1)[0].own_db == min(edge.own_db for edge in few.edges)


def test_what_is_clipped_is_counted() -> None:
    quantized = made()
    loud = noise(quantized, [10 * data()])
    assert loud.edges[0].clipped > 0.5
    assert loud.edges[0].high > 2 * (loud.edges[0].grid_high or 0)
    assert noise(quantized, [data()]).edges[0].clipped < 0.01


@pytest.mark.parametrize("name", ["residual", "depthwise", "attention"])
def test_any_network(name: str) -> None:
    model, inputs = net(name)
    quantized = ptq(model, inputs, [data()], SCHEME)
    report = noise(quantized, [data(4)])
    assert {edge.node for edge in quantized.plan.edges} <= {edge.edge for edge in report.edges}
    assert {edge.layer for edge in report.edges} >= {w.layer for w in quantized.plan.weights}
    assert report.output_db > 15
    assert from_json(QuantNoise, to_json(report)) == report
    assert str(report).count("\n") == len(report.edges)


def test_nothing_to_look_at_is_an_error() -> None:
    with pytest.raises(BadArgument, match="at least one input"):
        noise(made(), [])


def test_a_value_that_layers_read_coarser_has_a_row_for_each_grid() -> None:
    model, inputs = net("residual")
    scheme = Scheme(weight_bits=8, activation_bits=3, ends=Bits(), rounding=Nearest())
    quantized = ptq(model.eval(), inputs, [data()], scheme)
    twice = [edge.node for edge in quantized.plan.edges if edge.readers == "layers"]
    assert twice
    rows = {edge.edge: edge for edge in noise(quantized, [data()]).edges}
    for node in twice:
        fine, coarse = rows[node], rows[f"{node}:layers"]
        assert (fine.activation_bits, coarse.activation_bits) == (8, 3)
        assert fine.own_db > coarse.own_db + 20
        assert (coarse.layer, coarse.weight_db) == ("", None)
