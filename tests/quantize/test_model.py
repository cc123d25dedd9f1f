"""A plan is enough to make the quantized model again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gracile.errors import BadArgument
from gracile.nn import ActivationQuantizer, QuantizedBias, QuantizedWeight
from gracile.quantize import Nearest, Scheme, ptq, rebuild
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
