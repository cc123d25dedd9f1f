"""Outlier channel splitting: exact in float, halves that round to the whole, and outliers halved."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.quantize import Bits, Nearest, PerTensor, Scheme, SplitChannels, ptq, rebuild
from gracile.quantize.rescue.channel_splitting import halves

X = torch.rand(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A linear layer behind a flatten, a sum and a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 10, 3), nn.Conv2d(10, 10, 1), nn.Conv2d(10, 10, 1, groups=5)
        self.d, self.fc = nn.Conv2d(10, 6, 3, stride=2, bias=False), nn.Linear(6 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        x = self.c((self.b(x) + x).relu()).relu()
        out: Tensor = self.fc(self.d(x).relu().flatten(1))
        return out


def net() -> Net:
    torch.manual_seed(0)
    model = Net().eval()
    with torch.no_grad():
        model.b.weight[:, 4] *= 9
        model.d.weight[2] *= 9
    return model


SCHEME = {"weight_bits": 4, "ends": Bits(), "rounding": Nearest(), "weight_granularity": PerTensor()}


@pytest.mark.parametrize("of", ["weights", "activations"])
def test_the_float_network_stays_and_the_plan_rebuilds_it(of: Literal["weights", "activations"]) -> None:
    model = net()
    split = SplitChannels(share=0.2, of=of)
    quantized = ptq(model, (X[:1],), [X], Scheme(rescue=(split,), **SCHEME))  # type: ignore[arg-type]
    with torch.no_grad():
        assert torch.allclose(quantized.float_graph(X), model(X), atol=1e-5)
        assert torch.equal(rebuild(model, (X[:1],), quantized.plan)(X), quantized(X))
    found = {record.layer: record for record in quantized.plan.prepared.split}
    why = {entry.where: entry.why for entry in quantized.plan.prepared.skipped}
    if of == "weights":
        assert set(found) == {"a", "b", "d", "fc"}
        assert found["b"].channels[0] == 4
        assert len(found["b"].channels) == 2
        assert why["c"] == "its channels are grouped"
    else:
        assert set(found) == {"fc"}
        assert found["fc"].channels[0] == 2
        assert "grouped" in why["c"]


def test_an_outlier_hurts_less() -> None:
    model, errors = net(), []
    for rescue in ((), (SplitChannels(share=0.1),)):
        scheme = Scheme(rescue=rescue, weight_range="minmax", **SCHEME)  # type: ignore[arg-type]
        quantized = ptq(model, (X[:1],), [X], scheme)
        with torch.no_grad():
            errors.append(float((quantized(X) - model(X)).square().mean()))
    assert errors[1] < 0.9 * errors[0]


def test_the_step_of_split_activations_is_half() -> None:
    model, steps = net(), []
    for rescue in ((), (SplitChannels(share=0.1, of="activations"),)):
        scheme = Scheme(rescue=rescue, activation_range="minmax", **SCHEME)  # type: ignore[arg-type]
        plan = ptq(model, (X[:1],), [X], scheme).plan
        steps.append({edge.node: edge.scale for edge in plan.edges}["relu_3"])
    assert steps[1] == pytest.approx(steps[0] / 2, rel=0.01)


@settings(max_examples=50)
@given(weight=st.floats(-6, 6), step=st.floats(0.05, 2))
def test_both_halves_round_to_what_the_whole_does(weight: float, step: float) -> None:
    steps = torch.tensor([step])
    if abs(abs(weight / step) % 1 - 0.5) < 1e-3 or weight == 0:
        return
    parts = halves(torch.tensor([[weight]], dtype=torch.float64), (0,), (float(steps),))[0]
    assert float(parts.sum()) == pytest.approx(weight, abs=1e-12)
    rounded = torch.round(parts / float(steps)).sum()
    whole = round(weight / float(steps))
    near = (parts / float(steps)) % 1
    if bool(((near - 0.5).abs() < 1e-3).any()):
        return
    assert int(rounded) == whole


def test_an_earlier_copy_can_be_split_again() -> None:
    found = halves(torch.tensor([[8.0, 1.0]]), (0, 2), ())
    assert found.tolist() == [[4.0, 1.0, 2.0, 2.0]]


def test_settings_are_checked() -> None:
    with pytest.raises(BadArgument, match="share"):
        SplitChannels(share=0)
    with pytest.raises(BadArgument, match="of"):
        SplitChannels(of="biases")  # type: ignore[arg-type]


def test_a_slope_for_each_channel_is_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 4, 3)).eval()
    quantized = ptq(model, (X[:1],), [X], Scheme(rescue=(SplitChannels(of="activations"),), **SCHEME))  # type: ignore[arg-type]
    assert not quantized.plan.prepared.split
    assert "prelu has a slope for each channel" in {s.why for s in quantized.plan.prepared.skipped}
