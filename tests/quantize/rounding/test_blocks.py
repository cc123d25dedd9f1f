"""Block reconstruction: nearer to the float block than its start, reproducible, exact in the plan."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.nn import QuantizedModel, QuantizedWeight
from gracile.quantize import AdaRound, Bits, Blocks, LeastSquares, Nearest, Rounding, Scheme, ptq, rebuild
from gracile.quantize.rounding import default_rounding
from gracile.quantize.rounding.blocks import _Run
from gracile.quantize.rounding.learned import LearnedEdge, LearnedLayer
from gracile.records import EdgeQuant, QuantPlan, WeightQuant, from_json, to_json


class Residual(nn.Module):
    """A stem, two residual blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a, self.b, self.c, self.d = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.b(F.relu(self.a(x))))
        x = F.relu(x + self.d(F.relu(self.c(x))))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


@cache
def case() -> tuple[nn.Module, Tensor, Tensor]:
    """The network, images that calibrate and others; neighbouring pixels are alike."""
    torch.manual_seed(0)
    model = Residual().eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    images = F.avg_pool2d(torch.randn(192, 3, 24, 24), 3) * 3
    return model, images[:128], images[128:]


@cache
def made(rounding: Rounding, weight_bits: int = 2, activation_bits: int = 4) -> QuantizedModel:
    model, x, _ = case()
    scheme = Scheme(weight_bits=weight_bits, activation_bits=activation_bits, rounding=rounding)
    return ptq(model, (x[:1],), x.split(32), scheme)


def trunk_error(model: QuantizedModel) -> float:
    """Of the last block's output, on images that nothing has learned from."""
    _, _, other = case()
    with torch.no_grad():
        return float((model(other) - model.float_graph(other)).square().mean())


SHORT = Blocks(iterations=150, batch=16)


def test_better_than_the_nearest_and_than_least_squares() -> None:
    learned = trunk_error(made(SHORT))
    assert learned < 0.7 * trunk_error(made(LeastSquares()))
    assert learned < 0.5 * trunk_error(made(Nearest()))


def test_each_block_is_nearer_to_the_float_one() -> None:
    """Layer by layer where the plans differ: the output behind each residual block."""
    _, _, other = case()
    for node in ("relu_2", "relu_4"):
        errors = []
        for rounding in (SHORT, LeastSquares()):
            quantized = made(rounding)
            errors.append(_error_at(quantized, node, other))
        assert errors[0] < errors[1], node


def _error_at(quantized: QuantizedModel, node: str, x: Tensor) -> float:
    seen: list[Tensor] = []
    hook = quantized.network.get_submodule(f"quantizers.{node}").register_forward_hook(
        lambda module, args, output: seen.append(args[0].relu())
    )
    exact = torch.fx.Interpreter(quantized.float_graph, garbage_collect_values=False)
    with torch.no_grad():
        quantized(x)
        exact.run(x)
    hook.remove()
    wanted = next(value for n, value in exact.env.items() if n.name == node)
    return float((seen[0] - wanted).square().mean())


def test_the_same_seed_gives_the_same_plan() -> None:
    short = Blocks(iterations=8, batch=8, images=32)
    model, x, _ = case()
    plans = []
    for rounding in (short, short, replace(short, seed=1)):
        torch.manual_seed(len(plans))
        scheme = Scheme(weight_bits=3, activation_bits=3, rounding=rounding)
        plans.append(ptq(model, (x[:1],), x.split(32), scheme).plan)
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


def test_a_plan_read_back_gives_the_same_numbers() -> None:
    model, x, other = case()
    quantized = made(SHORT)
    plan = from_json(QuantPlan, to_json(quantized.plan))
    with torch.no_grad():
        assert torch.equal(rebuild(model, (x[:1],), plan)(other), quantized(other))


def test_integers_stay_within_their_bits_and_ends_keep_eight() -> None:
    quantized = made(SHORT)
    stored = {m.name: m for m in quantized.modules() if isinstance(m, QuantizedWeight)}
    assert {name: m.bits for name, m in stored.items() if m.bits == 8}.keys() == {"stem", "head"}
    for name in ("a", "b", "c", "d"):
        assert set(stored[name].integers.unique().tolist()) <= {-2, -1, 0, 1}
    grids = {edge.name: edge for edge in quantized.plan.edges}
    assert (grids["relu"].bits, grids["relu:layers"].bits) == (8, 4)
    first = {edge.name: edge.scale for edge in made(LeastSquares()).plan.edges}
    assert grids["relu"].scale == first["relu"]  # what has 8 bits is left as it was
    assert grids["relu:layers"].scale != first["relu:layers"]


def test_eight_bits_are_least_squares() -> None:
    model, x, _ = case()
    eight = Scheme(rounding=Blocks(iterations=5))
    assert ptq(model, (x[:1],), x.split(32), eight).plan == ptq(model, (x[:1],), x.split(32)).plan


def test_below_eight_bits_blocks_are_the_default() -> None:
    eight = made(LeastSquares(), 8, 8).plan
    assert default_rounding(eight) == LeastSquares()
    assert default_rounding(made(Nearest(), 4, 8).plan) == Blocks()
    assert default_rounding(made(Nearest(), 8, 4).plan) == Blocks()
    watched = default_rounding(made(Nearest(), 4, 8).plan, print)
    assert isinstance(watched, Blocks)
    assert watched.progress is print


def test_pruned_weights_stay_zero() -> None:
    torch.manual_seed(1)
    model, x = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3)).eval(), case()[1]
    keep = torch.rand_like(model[0].weight) < 0.5
    model[0].weight.data *= keep
    for soft in (False, True):
        scheme = Scheme(weight_bits=3, ends=Bits(), rounding=Blocks(iterations=30, soft=soft))
        quantized = ptq(model, (x[:1],), x.split(32), scheme)
        stored = next(m for m in quantized.modules() if isinstance(m, QuantizedWeight) and m.name == "0")
        assert bool((stored.integers[~keep] == 0).all())


@pytest.mark.parametrize(
    "other",
    [
        Blocks(iterations=150, batch=16, start=Nearest()),
        Blocks(iterations=300, batch=16, soft=True, rate=0.1, start=AdaRound(iterations=200)),
        Blocks(iterations=150, batch=16, spring=0.0),
        Blocks(iterations=150, batch=16, drop=0.0, learn_steps=False, bf16=False, layers=1),
    ],
    ids=["from the nearest", "soft", "without springs", "layer by layer"],
)
def test_other_settings_beat_the_nearest_too(other: Blocks) -> None:
    assert trunk_error(made(other)) < 0.8 * trunk_error(made(Nearest()))


def test_a_spring_keeps_integers_that_no_single_move_betters(monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer, settled by coordinate descent: what then moves without a spring was not worth moving."""
    learned_then_start = itertools.cycle([0.0, 1.0])  # whatever was learned is kept
    monkeypatch.setattr(_Run, "_error", lambda *args: next(learned_then_start))
    monkeypatch.setattr("gracile.quantize.rounding.blocks._PROBES", 200)  # so that curvature is exact
    torch.manual_seed(3)
    model, x = nn.Sequential(nn.Linear(24, 16)).eval(), torch.randn(1024, 24) @ torch.randn(24, 24)
    start = LeastSquares(images=1024, damping=1e-6, steps=0, passes=100)
    settled, *moved = (
        ptq(model, (x[:1],), x.split(64), Scheme(weight_bits=3, ends=Bits(), rounding=rounding))
        for rounding in (
            start,
            *(
                Blocks(
                    iterations=100,
                    batch=896,
                    start=start,
                    spring=s,
                    learn_steps=False,
                    drop=0.0,
                    bf16=False,
                )
                for s in (1.0, 0.0)
            ),
        )
    )
    integers = [
        next(m for m in one.modules() if isinstance(m, QuantizedWeight)).integers for one in (settled, *moved)
    ]
    changed = [int((one != integers[0]).sum()) for one in integers[1:]]
    assert changed[0] <= 0.03 * integers[0].numel()
    assert changed[1] > 2 * changed[0]
    with torch.no_grad():
        errors = [float((one(x) - model(x)).square().mean()) for one in (settled, *moved)]
    assert errors[1] <= 1.02 * errors[0]
    assert errors[2] > errors[1]


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    model, x, _ = case()
    rounding = Blocks(iterations=1, images=8, progress=lambda done, of: told.append((done, of)))
    ptq(model, (x[:1],), x.split(32), Scheme(weight_bits=4, rounding=rounding))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_step_has_the_gradient_of_learned_steps() -> None:
    """Against the formula written out: rounding passes inside the range, the step gets what is left."""
    edge = LearnedEdge(
        EdgeQuant(node="x", bits=2, qmin=0, qmax=3, scale=0.5, zero_point=1, readers="all"), learn=True
    )
    x = torch.tensor([-2.0, -0.3, 0.2, 0.6, 5.0], requires_grad=True)
    y = edge(x)
    assert y.tolist() == [-0.5, -0.5, 0.0, 0.5, 1.0]
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert edge.factor.grad is not None
    # d y / d log s: the value itself outside, value minus x inside
    assert float(edge.factor.grad) == pytest.approx(-0.5 + (-0.5 + 0.3) - 0.2 + (0.5 - 0.6) + 1.0, abs=1e-5)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("axis", [0, None])
def test_learning_starts_at_the_integers_of_the_plan(soft: bool, axis: int | None) -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 6)
    scale, zeros = ((0.3, 0.2, 0.4, 0.3), (0, 1, -2, 0)) if axis == 0 else ((0.3,), (1,))
    plan = WeightQuant(layer="fc", bits=4, qmin=-8, qmax=7, axis=axis, scale=scale, zero_point=zeros)
    layer = LearnedLayer(plan, weight, None, soft=soft, unit=torch.ones(4), input_scale=1.0)
    stored = QuantizedWeight("fc", weight, scale, zeros, -8, 7, axis, 4)
    assert torch.allclose(layer.hard(), stored(), atol=1e-6)
    finished = layer.finished()
    assert (finished.moved, finished.scale) == ("", pytest.approx(scale))


@pytest.mark.parametrize(
    "wrong", [{"images": 1}, {"iterations": 0}, {"batch": 0}, {"drop": 1.0}, {"rate": 0.0}, {"spring": -1.0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadArgument, match=r"at least|below 1|above 0"):
        Blocks(**wrong)  # type: ignore[arg-type]
