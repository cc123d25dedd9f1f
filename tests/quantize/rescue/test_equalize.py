"""Cross-layer equalization: exact, equal ranges, and refused where it would not be exact."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.quantize import Bits, Equalize, Nearest, PerTensor, Scheme, equalize, ptq
from gracile.quantize.pairs import columns, per_input, scale_
from gracile.records import ChannelScaling, EqualizePlan, from_json, to_json
from gracile.testing.contract import fingerprint

X = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(3))


class Chain(nn.Module):
    """A depthwise triple, grouped and linear readers, a sum and a ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depth = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.project, self.group = nn.Conv2d(8, 6, 1, bias=False), nn.Conv2d(6, 4, 3, groups=2)
        self.capped, self.added = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.wide, self.fc = nn.Conv2d(4, 5, 1), nn.Linear(5 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(self.depth(self.expand(x).relu()).relu())
        x = nn.functional.relu6(self.capped(nn.functional.leaky_relu(self.group(x)).relu()))
        x = self.added(x) + x
        x = nn.functional.adaptive_avg_pool2d(nn.functional.max_pool2d(self.wide(x).relu(), 2), 2)
        out: Tensor = self.fc(x.flatten(1))
        return out


def lively() -> Chain:
    """Channels of very different ranges."""
    torch.manual_seed(0)
    model = Chain().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(10 ** (3 * torch.rand(len(p), *[1] * (p.dim() - 1)) - 1.5))
    return model


def test_outputs_stay_and_ranges_become_equal() -> None:
    model = lively()
    before = fingerprint(model)
    same, plan = equalize(model, (X[:1],))
    assert fingerprint(model) == before
    with torch.no_grad():
        assert torch.allclose(same(X), model(X), rtol=1e-4, atol=1e-5 * float(model(X).abs().max()))
    found = {s.first: s.readers for s in plan.scaled}
    assert found == {
        "expand": ("depth",),
        "depth": ("project",),
        "project": ("group",),
        "group": ("capped",),
        "wide": ("fc",),
    }
    for first, (reader,) in found.items():
        writes = same.get_parameter(f"{first}.weight").abs().flatten(1).amax(1)
        reads = per_input(same.get_parameter(f"{reader}.weight"), len(writes))
        assert torch.allclose(writes, reads, rtol=0.02), first
    assert from_json(EqualizePlan, to_json(plan)) == plan


def test_reasons_are_given() -> None:
    why = {s.where: s.why for s in equalize(lively(), (X[:1],))[1].skipped}
    assert why == {
        "capped": "its output goes through relu6, whose bounds would have to be scaled channel by channel",
        "added": "its output meets others in add",
        "fc": "its output is the model's",
    }


def test_a_norm_or_a_second_run_in_between_is_refused() -> None:
    shared = nn.Conv2d(3, 3, 1)
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), shared, nn.ReLU(), shared).eval()
    plan = equalize(net, (X[:1],))[1]
    assert not plan.scaled
    assert {s.why for s in plan.skipped} == {"its output goes into batch_norm", "it runs more than once"}


def test_one_scale_for_a_weight_is_where_it_helps() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    spread = tuple((10 ** (2 * torch.rand(8) - 1)).tolist())
    scale_(model, ChannelScaling(first="0", readers=("2",), scale=spread))
    fields = {"weight_granularity": PerTensor(), "rounding": Nearest(), "weight_bits": 5, "ends": Bits()}
    errors = []
    for rescue in ((), (Equalize(),)):
        quantized = ptq(model, (X[:1],), [X], Scheme(rescue=rescue, **fields))  # type: ignore[arg-type]
        with torch.no_grad():
            errors.append(float((quantized(X) - model(X)).square().mean()))
    assert errors[1] < 0.3 * errors[0]


@settings(max_examples=25)
@given(groups=st.integers(1, 3), each=st.integers(1, 3), outs=st.integers(1, 3), seed=st.integers(0, 99))
def test_columns_of_grouped_weights_are_those_that_read_the_channel(
    groups: int, each: int, outs: int, seed: int
) -> None:
    """Oracle: scaling the input's channels is the same as scaling the columns."""
    torch.manual_seed(seed)
    conv = nn.Conv2d(groups * each, groups * outs, 1, groups=groups, bias=False).double()
    values, x = torch.rand(groups * each).double(), torch.randn(2, groups * each, 1, 1).double()
    scaled = copy.deepcopy(conv)
    with torch.no_grad():
        scaled.weight.mul_(columns(values, conv.weight))
        assert torch.allclose(scaled(x), conv(x * values.reshape(1, -1, 1, 1)))
    alone = [
        max(
            float(conv.weight.detach()[o, i % each].abs().max())
            for o in range(outs * (i // each), outs * (i // each + 1))
        )
        for i in range(groups * each)
    ]
    assert per_input(conv.weight, groups * each).tolist() == pytest.approx(alone)


def test_rounds_are_checked() -> None:
    with pytest.raises(BadArgument, match="rounds"):
        Equalize(rounds=0)
