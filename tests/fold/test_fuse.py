"""Layers that become one: found by data flow, exact on the model, refused where they are not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gracile import fold
from gracile.errors import BadArgument
from gracile.fold.merge_branches import merged, refuses
from gracile.graph import cost
from gracile.records import FusePlan, Fusion, from_json, to_json
from gracile.testing import NETS, net


def same(model: nn.Module, x: Tensor) -> FusePlan:
    """The plan, after checking that it changes nothing."""
    model.eval()
    plan = fold.plan_fusions(model, (x[:1],))
    small = fold.apply_fusions(model, plan)
    with torch.no_grad():
        assert torch.allclose(small(x), model(x), atol=1e-4)
    assert from_json(FusePlan, to_json(plan)) == plan
    gone = sum(f.macs_before - f.macs_after for f in plan.fusions if f.kind != "parallel")
    if all(f.kind != "parallel" for f in plan.fusions):
        assert cost(model, (x[:1],)).macs - cost(small, (x[:1],)).macs == gone
    return plan


class RepVGG(nn.Module):
    """Three branches of one input, of which one is a norm; a sum in two steps."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.wide, self.narrow = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = self.wide(x) + self.narrow(x)
        if self.inplace:
            y += self.norm(x)
        else:
            y = y + self.norm(x)
        out: Tensor = self.last(torch.relu(y))
        return out


@pytest.mark.parametrize("inplace", [False, True])
def test_parallel_branches_become_one(inplace: bool) -> None:
    model = RepVGG(inplace)
    nn.init.uniform_(model.norm.running_mean)
    nn.init.uniform_(model.norm.running_var, 0.5, 2)
    plan = same(model, torch.randn(2, 3, 8, 8))
    assert {(f.first, f.second, f.kind) for f in plan.fusions} == {
        ("wide", "narrow", "parallel"), ("wide", "norm", "parallel"),
    }  # fmt: skip
    small = fold.apply_fusions(model, plan)
    assert len(list(small.parameters())) == 6
    assert (
        cost(small, (torch.zeros(1, 3, 8, 8),)).params == cost(model, (torch.zeros(1, 3, 8, 8),)).params - 80
    )


def test_three_in_a_row_become_one() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.Dropout(), nn.Conv2d(16, 8, 3), nn.Conv2d(8, 4, 1), nn.ReLU()
    )
    plan = same(model, torch.randn(2, 3, 8, 8))
    assert [(f.first, f.second) for f in plan.fusions] == [("0", "2"), ("0", "3")]
    small = fold.apply_fusions(model, plan)
    assert [type(m).__name__ for m in small] == ["Conv2d", "Dropout", "Identity", "Identity", "ReLU"]


def test_linear_layers_in_a_row() -> None:
    model = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 4), nn.Tanh(), nn.Linear(4, 4))
    plan = same(model, torch.randn(2, 8))
    assert [(f.first, f.second) for f in plan.fusions] == [("0", "1")]


def test_what_would_cost_more_stays_unless_asked_for() -> None:
    model, x = nn.Sequential(nn.Conv2d(16, 2, 1), nn.Conv2d(2, 16, 3)).eval(), torch.randn(1, 16, 8, 8)
    plan = fold.plan_fusions(model, (x,))
    assert not plan.fusions
    assert "multiply-adds instead of" in plan.skipped[0].why
    forced = fold.plan_fusions(model, (x,), always=True)
    with torch.no_grad():
        assert torch.allclose(fold.apply_fusions(model, forced)(x), model(x), atol=1e-4)
    assert len(forced.fusions) == 1


class Refused(nn.Module):
    """An output that is read twice, a layer that is called twice, padding in the middle, two strides."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.twice = nn.Conv2d(4, 4, 1)
        self.padded = nn.Conv2d(4, 4, 3, padding=1)
        self.strided, self.plain = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = torch.relu(self.b(x)) * x
        y = torch.relu(self.twice(torch.relu(self.twice(y))))
        y = torch.relu(self.padded(self.padded.forward(y)))
        out: Tensor = self.strided(y) + self.plain(y)[..., 1:-1, 1:-1]
        return out


def test_what_is_not_exact_is_left() -> None:
    plan = same(Refused(), torch.randn(2, 3, 8, 8))
    assert not plan.fusions


@pytest.mark.parametrize("name", NETS)
def test_every_kind_of_network_keeps_its_outputs(name: str) -> None:
    model, inputs = net(name)
    folded = fold.apply(model, fold.plan(model, inputs)).eval()
    plan = fold.plan_fusions(folded, inputs)
    with torch.no_grad():
        found, wanted = fold.apply_fusions(folded, plan)(*inputs), folded(*inputs)
    assert float((found - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 1)),
        (nn.Conv2d(4, 6, 5, padding=2, stride=2), nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=2)),
        (nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6), nn.BatchNorm2d(6)),
        (nn.Conv1d(4, 6, 5, padding=2, bias=False), nn.Conv1d(4, 6, 3, padding=2, dilation=2, bias=False)),
        (nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.Conv2d(4, 4, (1, 3), padding=(0, 1), groups=2)),
    ],
)
def test_a_sum_is_one_convolution(first: nn.Module, second: nn.Module) -> None:
    second.eval()
    x = torch.randn(2, first.in_channels, *[9] * (first.weight.dim() - 2))
    assert refuses(first, second) is None
    with torch.no_grad():
        assert torch.allclose(merged(first, second)(x), first(x) + second(x), atol=1e-5)


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (nn.Conv2d(4, 4, 5, padding=2), "does not"),
        (nn.Conv2d(4, 4, 1, stride=2), "strides"),
        (nn.Conv2d(4, 5, 1), "widths"),
        (nn.ReLU(), "neither"),
        (nn.BatchNorm2d(4, track_running_stats=False), "neither"),
        (nn.Conv2d(4, 4, 3, padding="same"), "padding"),
    ],
)
def test_other_summands_are_refused(second: nn.Module, why: str) -> None:
    assert why in str(refuses(nn.Conv2d(4, 4, 3, padding=1), second))


def test_a_plan_of_another_model_is_refused() -> None:
    plan = FusePlan(fusions=(Fusion(first="0", second="9"),))
    with pytest.raises(BadArgument, match="no such name"):
        fold.apply_fusions(nn.Sequential(nn.Linear(2, 2)), plan)


class Viewed(nn.Module):
    """A convolution whose whole image a linear layer reads, laid flat by the user's own code."""

    def __init__(self, conv: nn.Module, image: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv
        with torch.no_grad():
            size = conv(torch.zeros(1, 4, *[image] * (conv.weight.dim() - 2))).numel()
        self.drop, self.linear = nn.Dropout(), nn.Linear(size, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.linear(self.drop(y).view(y.size(0), -1))


@settings(max_examples=25)
@given(st.data())
def test_a_linear_layer_that_reads_a_whole_image(data: st.DataObject) -> None:
    """Every stride, padding, dilation and number of groups; padding of the convolution stays exact."""
    torch.manual_seed(data.draw(st.integers(0, 999)))
    axes = data.draw(st.sampled_from([1, 2]))
    kernel, stride, padding, dilation = (data.draw(st.integers(low, high)) for low, high in
                                         ((1, 3), (1, 3), (0, 2), (1, 2)))  # fmt: skip
    conv = [nn.Conv1d, nn.Conv2d][axes - 1](
        4, 4, kernel, stride=stride, padding=padding, dilation=dilation,
        groups=data.draw(st.sampled_from([1, 2, 4])), bias=data.draw(st.booleans()),
    )  # fmt: skip
    image = data.draw(st.integers(5, 7))
    model = Viewed(conv, image, 3).double().eval()
    x = torch.randn(2, 4, *[image] * axes).double()
    space = tuple(conv(x).shape[2:])
    plan = FusePlan(fusions=(Fusion(first="conv", second="linear", kind="flat", space=space),))
    with torch.no_grad():
        torch.testing.assert_close(fold.apply_fusions(model, plan)(x), model(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", [8, 3])
def test_an_image_laid_flat_is_found_where_it_pays(kernel: int) -> None:
    model = Viewed(nn.Conv2d(4, 32, kernel, stride=kernel), 8, 10)
    plan = same(model, torch.randn(2, 4, 8, 8))
    if kernel == 8:  # one position: 32 outputs less to compute
        assert [(f.kind, f.space) for f in plan.fusions] == [("flat", (1, 1))]
        assert isinstance(fold.apply_fusions(model, plan).linear, nn.Identity)
    else:
        small = nn.Conv2d(4, 32, kernel, stride=kernel)
        assert plan.fusions[0].macs_after < 32 * 4 * 9 * 4 + small.out_channels * 4 * 10
        assert plan.fusions[0].space == (2, 2)


class Grown(nn.Module):
    """Laid flat, but read by others too; and a view that is not flat."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 4), nn.Conv2d(4, 4, 4)
        self.one, self.two = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).flatten(1)
        out: Tensor = self.one(y) + y[:, :3] + self.two(self.b(x).view(-1, 2, 2)).sum(1)
        return out


def test_other_shapes_are_left() -> None:
    assert not same(Grown(), torch.randn(2, 4, 4, 4)).fusions


class Named(nn.Module):
    """Layers with two names, run by the second; several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3)
        self.body = nn.Sequential(self.first, self.second)
        self.spare = self.also = nn.Linear(4, 4)

    def forward(self, x: Tensor):
        y = self.body(x)
        return {"y": y, "above": y > 0}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_layers_with_two_names_and_of_half_precision_become_one(dtype: torch.dtype) -> None:
    model, x = Named().eval().to(dtype), torch.randn(1, 3, 6, 6, dtype=dtype)
    plan = fold.plan_fusions(model, (x,))
    small = fold.apply_fusions(model, plan)
    assert [f.kind for f in plan.fusions] == ["chain"]
    assert small.first is small.body[0]
    assert isinstance(small.second, nn.Identity)
    assert sum(p.numel() for p in small.parameters()) == 4 * 3 * 9 + 4
