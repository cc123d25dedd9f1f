"""A plan is enough to make the quantized model again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import fx, nn

from gracile.errors import BadArgument
from gracile.nn import ActivationQuantizer, QuantizedBias, QuantizedWeight, fake_quantize
from gracile.quantize import Bits, Nearest, Scheme, integer_run, ptq, rebuild
from gracile.quantize.lower import lower
from gracile.quantize.units import find_units
from gracile.records import QuantPlan, from_json, to_json
from gracile.testing import net


@pytest.mark.parametrize("name", ["residual", "concat", "attention"])
@pytest.mark.parametrize("correct", [False, True])
def test_a_plan_read_back_from_json_gives_the_same_numbers(name: str, correct: bool) -> None:
    model, inputs = net(name)
    first = ptq(model, inputs, torch.randn(32, 3, 8, 8).split(8), Scheme(bias_correction=correct))
    plan = from_json(QuantPlan, to_json(first.plan))
    assert plan == first.plan
    again = rebuild(model, inputs, plan)
    x = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(again(x), first(x))


def test_weights_and_biases_are_kept_as_integers_only() -> None:
    model, inputs = net("plain")
    quantized = ptq(model, inputs, [torch.randn(8, 3, 8, 8)], Scheme(rounding=Nearest()))
    kinds = [type(m) for m in quantized.modules()]
    assert (kinds.count(QuantizedWeight), kinds.count(QuantizedBias)) == (4, 3)  # conv1 has no bias
    assert kinds.count(ActivationQuantizer) > 4
    floats = {name for name, _ in quantized.named_parameters()}
    assert all("bn" in name for name in floats)


def test_the_float_graph_is_kept_beside_it() -> None:
    model, inputs = net("plain")
    quantized = ptq(model, inputs, [torch.randn(8, 3, 8, 8)])
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(quantized.float_graph(x), model(x), atol=1e-5)
    assert not any("float_graph" in name for name in quantized.state_dict())


def test_a_plan_of_another_model_is_refused() -> None:
    plain, inputs = net("plain")
    other, _ = net("residual")
    plan = ptq(plain, inputs, [torch.randn(8, 3, 8, 8)]).plan
    with pytest.raises(BadArgument, match="which this model lacks"):
        rebuild(other, inputs, plan)
    with pytest.raises(BadArgument, match="no grid for x"):
        rebuild(plain, inputs, replace(plan, edges=plan.edges[1:]))


def test_layers_read_the_coarse_grid_and_the_sum_the_fine_one() -> None:
    model, inputs = net("residual")
    scheme = Scheme(activation_bits=3, ends=Bits(), rounding=Nearest())
    quantized = ptq(model, inputs, torch.randn(32, 3, 8, 8).split(8), scheme)
    twice = [edge for edge in quantized.plan.edges if edge.readers == "layers"]
    assert twice
    for edge in twice:
        second = next(
            n for n in quantized.network.graph.nodes if str(n.target) == f"quantizers.{edge.node}_for_layers"
        )
        first = second.args[0]
        assert isinstance(first, fx.Node)
        assert str(first.target) == f"quantizers.{edge.node}"
        modules = [quantized.network.get_submodule(str(node.target)) for node in (first, second)]
        assert [m.bits for m in modules if isinstance(m, ActivationQuantizer)] == [8, 3]
        layers = {layer.node.name for layer in find_units(lower(model, inputs)).layers}
        assert {user.name for user in second.users} <= layers
        assert not {user.name for user in first.users if user is not second} & layers


def test_a_plan_without_the_first_of_two_grids_is_refused() -> None:
    model, inputs = net("residual")
    scheme = Scheme(activation_bits=3, ends=Bits(), rounding=Nearest())
    plan = ptq(model, inputs, [torch.randn(8, 3, 8, 8)], scheme).plan
    lonely = tuple(edge for edge in plan.edges if edge.readers != "rest")
    with pytest.raises(BadArgument, match="no grid for"):
        rebuild(model, inputs, replace(plan, edges=lonely))


@pytest.mark.parametrize(("scale", "zero_point"), [(0.02, 5), (0.05, 0), (0.05, 9), (0.0234, 0)])
@pytest.mark.parametrize("bound", [None, 6.0])
def test_a_grid_that_reaches_further_than_the_activation_clips_as_it_does(
    scale: float, zero_point: int, bound: float | None
) -> None:
    """Trained grids may hold values below zero, or above the 6 of ReLU6."""
    torch.manual_seed(0)
    activation = nn.ReLU() if bound is None else nn.ReLU6()
    model = nn.Sequential(nn.Conv2d(3, 4, 1), activation).eval()
    x = torch.randn(16, 3, 8, 8) * 8
    plan = ptq(model, (x[:1],), [x], Scheme(rounding=Nearest())).plan
    grids = (plan.edges[0], replace(plan.edges[1], scale=scale, zero_point=zero_point))
    found = rebuild(model, (x[:1],), replace(plan, edges=grids))
    names = [str(n.target) for n in found.network.graph.nodes if n.op == "call_function"]
    assert names == ["aten.conv2d.default"]  # the activation has become the clip of the grid
    values = {n: m for n, m in found.network.named_modules() if isinstance(m, ActivationQuantizer)}
    layer = next(m for n, m in found.network.named_modules() if n.startswith("weights."))
    bias = next(m for n, m in found.network.named_modules() if n.startswith("biases."))
    with torch.no_grad():
        summed = torch.nn.functional.conv2d(values["quantizers.input_1"](x), layer(), bias())
        wanted = fake_quantize(
            activation(summed), torch.tensor(scale), torch.tensor(zero_point), grids[1].qmin, grids[1].qmax
        )
        got = found(x)
    assert torch.allclose(got, wanted, atol=1.001 * scale)  # a rounding that is nearly even may go either way
    assert float((got != wanted).float().mean()) < 0.01
    assert got.min() >= 0
    run = integer_run(found, x)
    assert not run.floats
    assert float((run.output - got).abs().max()) <= 1.01 * scale
