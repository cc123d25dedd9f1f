"""Norms that go into layers further away: before, behind, through sums, concatenations and movement."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gracile import fold
from gracile.errors import BadArgument
from gracile.nn import BorderMap, parts_of
from gracile.records import FoldPlan, from_json, to_json

FAST = (Phase.explicit, Phase.reuse, Phase.generate)  # a failing network is small as it is


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


class Net(nn.Module):
    """Modules by name, and a forward pass over them."""

    def __init__(self, run: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def norm(channels: int, axes: int = 2) -> nn.Module:
    """Statistics and parameters that show every mistake; no scale near zero."""
    made = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[axes](channels)
    nn.init.normal_(made.running_mean)
    nn.init.uniform_(made.running_var, 0.3, 3.0)
    nn.init.uniform_(made.weight, 0.5, 2.0)
    made.weight.data *= torch.randint(0, 2, (channels,)) * 2 - 1
    nn.init.normal_(made.bias)
    return made


def moved(net: nn.Module, x: Tensor, gone: list[str], left: dict[str, str] | None = None) -> FoldPlan:
    """Fold in float64: exact, the plan survives JSON, and a folded state loads."""
    net = net.double().eval()
    x = x.double()
    plan = from_json(FoldPlan, to_json(fold.plan(net, (x[:1],))))
    assert sorted(plan.norms) == sorted(gone), str(plan)
    if left is not None:
        assert {s.where: s.why for s in plan.skipped} == left
    folded = fold.apply(net, plan)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), net(x), rtol=1e-8, atol=1e-8)
    fresh = fold.apply_structure(net, plan)
    fresh.load_state_dict(folded.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(x), folded(x))
    return plan


def conv(inputs: int, outputs: int, kernel: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, **options)  # type: ignore[arg-type]


def test_before_a_convolution() -> None:
    net = Net(lambda m, x: m.conv(m.bn(x)).relu(), bn=norm(3), conv=conv(3, 4))
    plan = moved(net, torch.randn(2, 3, 7, 7), ["bn"])
    assert [(p.layer, p.side, p.undo) for p in plan.moves[0].parts] == [("conv", "in", True)]


def test_before_a_convolution_that_pads_a_map_is_hung_behind_it() -> None:
    net = Net(lambda m, x: m.conv(m.bn(x)).relu(), bn=norm(3), conv=conv(3, 4, padding=1, bias=False))
    x = torch.randn(2, 3, 7, 7)
    plan = moved(net, x, ["bn"])
    folded = fold.apply(net, plan)
    border = parts_of(folded.conv)["border"]
    assert isinstance(border, BorderMap)
    assert border.table.shape == (4, 3, 3)
    larger = torch.randn(1, 3, 12, 9).double()  # stride 1: exact for every size
    with torch.no_grad():
        torch.testing.assert_close(folded(larger), net(larger))


def test_a_shift_that_need_not_reach_padding_does_not() -> None:
    """Of the two summands, the one that the padded layer does not read takes the shift."""

    def run(m: Net, x: Tensor) -> Tensor:
        a = m.a(x)
        return m.bn(a + m.b(x)).relu().sum((2, 3)) + m.reader(a).relu().sum((2, 3))

    net = Net(run, a=conv(3, 4), b=conv(3, 4), bn=norm(4), reader=conv(4, 4, padding=1))
    plan = moved(net, torch.randn(2, 3, 9, 9), ["bn"])
    shares = {(p.layer, p.side): p.share for p in plan.moves[0].parts}
    assert shares == {("a", "out"): 0, ("b", "out"): 1, ("reader", "in"): 0}


def test_through_a_concatenation_into_what_gives_it() -> None:
    def run(m: Net, x: Tensor) -> Tensor:
        return m.bn(torch.cat([m.a(x), m.b(x), m.c(x)], 1)).relu()

    net = Net(run, a=conv(3, 4), b=nn.ConvTranspose2d(3, 6, 1, groups=3), c=conv(3, 3, groups=3), bn=norm(13))
    net.b = nn.Sequential(net.b, nn.AvgPool2d(3, 1))
    moved(net, torch.randn(2, 3, 7, 7), ["bn"])


def test_a_concatenation_goes_partly_back_and_partly_ahead() -> None:
    """The input cannot take anything in, and what is behind an activation neither."""

    def run(m: Net, x: Tensor) -> Tensor:
        y = m.bn(torch.cat([x, m.a(x)], 1))
        one, two = y.split([3, 4], 1)
        return m.b(one).relu() + two.relu()

    net = Net(run, a=conv(3, 4, padding=1), bn=norm(7), b=conv(3, 4, 1))
    plan = moved(net, torch.randn(2, 3, 6, 6), ["bn"])
    assert {(p.layer, p.side, p.channel) for p in plan.moves[0].parts} == {("a", "out", 3), ("b", "in", 0)}


def test_pooling_and_flattening_before_a_linear_layer() -> None:
    def run(m: Net, x: Tensor) -> Tensor:
        y = F.dropout(F.avg_pool2d(m.bn(x.relu()), 2), 0.5, m.training)
        return m.fc(y.flatten(1)) + m.head(y.mean((2, 3)))

    net = Net(run, bn=norm(3), fc=nn.Linear(27, 5), head=nn.Linear(3, 5))
    plan = moved(net, torch.randn(2, 3, 6, 6), ["bn"])
    assert {(p.layer, p.count, p.repeat) for p in plan.moves[0].parts} == {("fc", 27, 9), ("head", 3, 1)}


def test_tokens() -> None:
    """A linear layer over the last axis, and a norm over the second of another shape."""

    def run(m: Net, x: Tensor) -> Tensor:
        y = m.a(x)
        y = m.bn(y.flatten(0, 1)).reshape_as(y)
        return m.b(m.bn2(y.transpose(1, 2)).permute(0, 2, 1)).relu()

    net = Net(run, a=nn.Linear(3, 4), bn=norm(4, 0), bn2=norm(4, 1), b=nn.Linear(4, 5))
    moved(net, torch.randn(2, 6, 3), ["bn", "bn2"])


def test_one_norm_of_a_residual_stream_goes_and_the_others_follow() -> None:
    """As many as can: the stream has one free scale, whatever the number of norms that read it."""

    def run(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = x + m.c1(m.n1(x).relu())
        x = x + m.c2(m.n2(x).relu())
        return m.fc(m.n3(x).relu().mean((2, 3)))

    net = Net(run, stem=conv(3, 4, padding=1), n1=norm(4), c1=conv(4, 4, padding=1), n2=norm(4),
              c2=conv(4, 4, padding=1), n3=norm(4), fc=nn.Linear(4, 5))  # fmt: skip
    moved(net, torch.randn(2, 3, 6, 6), ["n1"])


def test_a_scale_of_zero_is_not_undone() -> None:
    def run(m: Net, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.bn(y).relu() + m.b(y)

    net = Net(run, a=conv(3, 4), bn=norm(4), b=conv(4, 4, 1))
    net.bn.weight.data[1] = 0
    why = {"bn": "before it stands a path on which a scale of zero cannot be undone, behind it relu"}
    moved(net, torch.randn(2, 3, 6, 6), [], why)
    plan = FoldPlan(pairs=(), moves=moved(_with(net), torch.randn(2, 3, 6, 6), ["bn"]).moves)
    net.bn.weight.data[1] = 0
    with pytest.raises(BadArgument, match="divided by"):
        fold.apply(net, plan)


def _with(net: nn.Module) -> nn.Module:
    net.bn.weight.data[1] = 1.5
    return net


def test_a_maximum_passes_scales_above_zero_only() -> None:
    def run(m: Net, x: Tensor) -> Tensor:
        return m.bn(F.max_pool2d(m.a(x), 3, 2, 1)).relu()

    net = Net(run, a=conv(3, 4), bn=norm(4))
    net.bn.weight.data.abs_()
    moved(net, torch.randn(2, 3, 9, 9), ["bn"])
    net.bn.weight.data[2] *= -1
    why = "before it stands a maximum, which a scale below zero does not pass, behind it relu"
    moved(net, torch.randn(2, 3, 9, 9), [], {"bn": why})


def test_norm_behind_norm() -> None:
    net = nn.Sequential(nn.ReLU(), norm(3), norm(3), nn.ReLU())
    plan = moved(net, torch.randn(2, 3, 5, 5), ["1"])
    assert plan.moves[0].parts[0].layer == "2"
    plain = nn.Sequential(nn.ReLU(), norm(3), nn.BatchNorm2d(3, affine=False), nn.ReLU())
    moved(plain, torch.randn(2, 3, 5, 5), ["1"])


class Affine(nn.Module):
    """A scale and shift, as in networks without norms."""

    def __init__(self, width: int, axis: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(width) + 0.5)
        self.beta = nn.Parameter(torch.randn(width))
        self.shape = [-1, *[1] * (-1 - axis)]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma.view(self.shape) + self.beta.view(self.shape)


def test_a_module_that_scales_and_shifts() -> None:
    net = nn.Sequential(conv(3, 4), Affine(4, -3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4), Affine(4, -1))
    moved(net, torch.randn(2, 3, 6, 6), ["1", "5"], {})


def test_numbers_written_in_the_code_scale_the_shift() -> None:
    def run(m: Net, x: Tensor) -> Tensor:
        return m.bn(0.5 * m.a(x) - 2 * m.b(x)).relu()

    net = Net(run, a=conv(3, 4), b=conv(3, 4), bn=norm(4))
    plan = moved(net, torch.randn(2, 3, 6, 6), ["bn"])
    assert {(p.layer, p.share) for p in plan.moves[0].parts} == {("a", 0), ("b", -0.5)}


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (lambda m, x: m.bn(x.relu()).relu(), "before it stands relu, behind it relu"),
        (lambda m, x: m.bn(x * x.mean()).sigmoid(), "before it stands mul, behind it sigmoid"),
        (lambda m, x: m.bn(m.a(x) + m.a(x)).relu(), "before it stands a runs more than once, or shares"),
        (lambda m, x: m.bn(torch.cat([m.a(x), m.b(x)], 2)).relu(), "the shift would differ within a channel"),
        (lambda m, x: m.bn(m.a(x) + m.a.bias.mean()).relu(), "before it stands a sum that spreads one value"),
        (lambda m, x: m.bn(m.b(x) * m.b.bias).relu(), "before it stands mul, behind it relu"),
    ],
)
def test_what_stays_says_what_stands_in_the_way(run: Callable[..., Tensor], why: str) -> None:
    net = Net(run, a=conv(3, 3, padding=1), b=conv(3, 3, 1), bn=norm(3)).eval()
    plan = fold.plan(net, (torch.randn(1, 3, 3, 3),))
    assert not plan.norms
    assert plan.skipped[0].why.startswith(why)


@st.composite
def layers(draw: st.DrawFn, width: int, axes: int) -> nn.Module:
    """A convolution of any stride, padding, dilation and groups, plain or transposed."""
    kinds = [(nn.Conv1d, nn.ConvTranspose1d), (nn.Conv2d, nn.ConvTranspose2d)][axes - 1]
    transposed = draw(st.booleans())
    groups = draw(st.sampled_from([1, 2, 4, 4]))
    padding = draw(st.one_of(st.integers(0, 2), st.just("same")))
    stride = draw(st.integers(1, 3))
    if padding == "same" and (transposed or stride > 1):
        padding = 0
    mode = (
        "zeros" if transposed else draw(st.sampled_from(["zeros", "zeros", "zeros", "reflect", "circular"]))
    )
    return kinds[transposed](  # type: ignore[abstract]
        width, draw(st.sampled_from([4, 8])), draw(st.integers(1, 4)), stride=stride, padding=padding,
        dilation=draw(st.integers(1, 2)), groups=groups, bias=draw(st.booleans()), padding_mode=mode,
    )  # fmt: skip


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), phases=FAST)
@given(st.data())
def test_any_layer_behind_or_before_a_norm(data: st.DataObject) -> None:
    """Every stride, padding, dilation and number of groups: folded exactly, or with a reason."""
    axes = data.draw(st.sampled_from([1, 2]))
    torch.manual_seed(data.draw(st.integers(0, 999)))
    layer = data.draw(layers(4, axes))
    x = torch.randn(2, 4, *[9, 8][:axes])
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that an even kernel with padding "same" copies its input
            outputs = layer(x).shape[1]
    except RuntimeError:  # the image is too small
        return
    behind = nn.Sequential(nn.ReLU(), layer, norm(outputs, axes), nn.ReLU())
    moved(behind, x, ["2"])
    before = nn.Sequential(nn.ReLU(), norm(4, axes), layer, nn.ReLU())
    plan = fold.plan(before.double().eval(), (x[:1].double(),))
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d) and not plan.norms:
        assert "differs by position" in plan.skipped[0].why
        return
    moved(before, x, ["1"])


def most(script: list[tuple[str, int, int]]) -> int:
    """How many norms can go, by counting: one less for each loop of norms between values that share a scale.

    Values with one scale are one point, all that cannot change are another; a norm joins two points.
    """
    count = len(script) + 1
    above = list(range(count + 1))  # the last point cannot change

    def top(point: int) -> int:
        while above[point] != point:
            point = above[point]
        return point

    def join(a: int, b: int) -> int:
        apart = top(a) != top(b)
        above[top(a)] = top(b)
        return int(apart)

    for at in range(1, count):
        kind, one, two = script[at - 1]
        if kind == "tanh" or (kind in ("add", "cat") and one == two):
            join(one, count)
        if kind == "tanh":
            join(at, count)
        if kind in ("add", "pool"):
            join(one, at)
        if kind == "add":
            join(two, at)
    return sum(join(script[at - 1][1], at) for at in range(1, count) if script[at - 1][0] == "norm")


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), phases=FAST)
@given(st.data())
def test_random_networks_keep_their_outputs(data: st.DataObject) -> None:
    """Sums, concatenations, pools and readers at random: exact, and no fewer norms go than can."""
    torch.manual_seed(data.draw(st.integers(0, 999)))
    script: list[tuple[str, int, int]] = []
    modules: dict[str, nn.Module] = {}
    for at in range(data.draw(st.integers(3, 7))):
        kind = data.draw(
            st.sampled_from(["norm", "norm", "norm", "conv", "conv", "add", "cat", "tanh", "pool"])
        )
        one, two = (data.draw(st.integers(0, at)) for _ in range(2))
        script.append((kind, one, two))
        if kind == "norm":
            modules[f"m{at}"] = norm(4)
        elif kind in ("conv", "cat"):
            groups = data.draw(st.sampled_from([1, 2, 4]))
            kernel = data.draw(st.sampled_from([1, 3]))
            modules[f"m{at}"] = conv(8 if kind == "cat" else 4, 4, kernel, padding=kernel // 2, groups=groups)

    def run(m: Net, x: Tensor) -> Tensor:
        values = [m.stem(x)]
        for at, (kind, one, two) in enumerate(script):
            a, b = values[one], values[two]
            if kind == "cat":
                value = getattr(m, f"m{at}")(torch.cat([a, b], 1))
            elif kind in ("norm", "conv"):
                value = getattr(m, f"m{at}")(a)
            elif kind == "pool":
                value = F.avg_pool2d(a, 3, 1, 1, count_include_pad=False)
            else:
                value = a + b if kind == "add" else a.tanh()
            values.append(value)
        return m.last(torch.cat(values, 1))  # none is dead

    net = Net(run, stem=conv(3, 4, 1), last=conv(4 * len(script) + 4, 2), **modules).double().eval()
    x = torch.randn(2, 3, 6, 6).double()
    plan = fold.plan(net, (x[:1],))
    with torch.no_grad():
        torch.testing.assert_close(fold.apply(net, plan)(x), net(x), rtol=1e-7, atol=1e-7)
    assert len(plan.norms) == most(script)
