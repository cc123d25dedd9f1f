"""On a model that lies elsewhere, what is made lies there too: fake tensors tell without a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from gracile.quantize import Nearest, Scheme, ptq
from gracile.quantize.dynamic import float_bias
from gracile.quantize.integer.accumulate import Accumulator, accumulate
from gracile.quantize.integer.forward import Stored, _join, _pool
from gracile.quantize.integer.overflow import worst_sums
from gracile.quantize.lower import lower
from gracile.quantize.rescue.absorb_bias import absorb_
from gracile.quantize.rescue.channel_splitting import split_
from gracile.quantize.rescue.residual_expansion import expand_
from gracile.quantize.statistics import propagate, standardised
from gracile.quantize.units import find_units
from gracile.records import BiasAbsorption, ChannelSplit, Expansion

X = torch.zeros(2, 3, 8, 8)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()


def put_on_gpu_(graph: fx.GraphModule) -> None:
    for name, parameter in list(graph.named_parameters()):
        owner, _, last = name.rpartition(".")
        fake = nn.Parameter(torch.empty(parameter.shape, device="cuda"), requires_grad=False)
        graph.get_submodule(owner).register_parameter(last, fake)


def runs_there(graph: fx.GraphModule) -> None:
    graph.recompile()
    out = graph(torch.empty(2, 3, 8, 8, device="cuda"))
    assert out.device.type == "cuda"


def moments(graph: fx.GraphModule) -> None:
    assert len(propagate(graph, standardised((X,)), {})) == 4


def absorption(graph: fx.GraphModule) -> None:
    absorb_(graph, BiasAbsorption(first="0", readers=("2",), amount=(1.0,) * 8))
    runs_there(graph)


def read_halves(graph: fx.GraphModule) -> None:
    split_(graph, ChannelSplit(layer="2", kind="weights", channels=(0,), steps=()))
    runs_there(graph)


def written_halves(graph: fx.GraphModule) -> None:
    split_(graph, ChannelSplit(layer="2", kind="activations", channels=(0,), steps=(), first="0"))
    runs_there(graph)


def expansion(graph: fx.GraphModule) -> None:
    expand_(graph, Expansion(layer="0", qmax=7, scales=((0.1,) * 8,), rows=((0, 2),)))
    runs_there(graph)


@pytest.mark.parametrize("act", [moments, absorption, read_halves, written_halves, expansion])
def test_what_changes_a_graph_stays_on_its_device(act: Callable[[fx.GraphModule], None]) -> None:
    graph = lower(network(), (X[:1],))
    with FakeTensorMode(allow_non_fake_inputs=True):
        put_on_gpu_(graph)
        act(graph)


def test_biases_in_float_lie_where_the_weights_do() -> None:
    model = network()
    plan = ptq(model, (X[:1],), (), Scheme(dynamic=True, rounding=Nearest())).plan
    graph = lower(model, (X[:1],))
    graph.add_submodule("biases", nn.Module())
    (first, _) = find_units(graph).layers
    with FakeTensorMode(allow_non_fake_inputs=True):
        put_on_gpu_(graph)
        shifted = type(plan.weights[0])(**{**vars(plan.weights[0]), "bias_shift": (1.0,) * 8})
        float_bias(graph, first, shifted)
        assert graph.get_buffer("biases.conv2d").device.type == "cuda"


def node_of(call: Callable[[Tensor], Tensor]) -> fx.Node:
    class Called(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return call(x)

    graph = lower(Called(), (X,))
    return next(n for n in graph.graph.nodes if n.op == "call_function")


def test_integers_meet_on_one_device() -> None:
    pool = node_of(lambda x: torch.nn.functional.avg_pool2d(x, 2, padding=1))
    layer = next(n for n in lower(network(), (X,)).graph.nodes if n.name == "conv2d")
    with FakeTensorMode(allow_non_fake_inputs=True):
        integers = torch.empty(2, 3, 8, 8, device="cuda", dtype=torch.uint8)
        stored = Stored(integers=integers, scale=0.5, zero_point=3)
        for pending in (_join([stored, stored], 1), _pool(pool, stored)):
            assert pending.real.device.type == "cuda"
        weight = torch.empty(8, 3, 3, 3, device="cuda", dtype=torch.int64)
        with pytest.raises(DataDependentOutputException):  # the first number that is asked for
            worst_sums(weight, None, 0, 3)
        with pytest.raises(DataDependentOutputException):
            accumulate(stored.centred, weight, None, layer, Accumulator(bits=8, overflow="saturate"))
