"""Quantization without data, on tiny networks whose norms know their data."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from gracile import fold
from gracile.errors import BadArgument, UnsupportedOperation
from gracile.quantize import (
    RESCUES,
    Bits,
    DataFree,
    Nearest,
    PerTensor,
    Rescue,
    Scheme,
    SQuant,
    ptq,
    rebuild,
)
from gracile.quantize.graph_fold import fold_norms_
from gracile.quantize.lower import lower
from gracile.records import QuantPlan, from_json, to_json
from gracile.testing import net
from gracile.testing.contract import fingerprint

X = torch.randn(256, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def settled(name: str) -> nn.Module:
    """A network whose running statistics are those of ``X``, with lively gammas and betas."""
    model = copy.deepcopy(net(name)[0])
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
            module.weight.data = 0.5 + torch.rand(module.num_features, generator=generator)
            module.bias.data = torch.randn(module.num_features, generator=generator) * 0.5
    model.train()
    with torch.no_grad():
        model(X)
    return model.eval()


def error(model: nn.Module, quantized: nn.Module) -> float:
    with torch.no_grad():
        wanted = model(X)
        return float((quantized(X) - wanted).square().mean() / wanted.var())


@pytest.mark.parametrize("name", ["plain", "residual", "depthwise", "concat"])
def test_eight_bits_are_close_to_float_and_the_plan_is_enough(name: str) -> None:
    model = settled(name)
    before = fingerprint(model)
    quantized = ptq(model, (X[:1],))
    assert fingerprint(model) == before
    assert 0 < error(model, quantized) < 2e-3
    plan = from_json(QuantPlan, to_json(quantized.plan))
    assert plan == quantized.plan
    with torch.no_grad():
        assert torch.equal(rebuild(model, (X[:1],), plan)(X[:8]), quantized(X[:8]))


def test_it_is_nearly_as_good_as_with_data() -> None:
    model = settled("residual")
    folded = fold.apply(model, fold.plan(model, (X[:1],)))
    scheme = Scheme(weight_bits=4, rounding=SQuant(), weight_range="minmax")
    with_data, without = ptq(folded, (X[:1],), [X], scheme), ptq(model, (X[:1],), None, scheme)
    assert error(model, without) < 1.5 * error(model, with_data) + 1e-3
    assert {w.layer for w in with_data.plan.weights} == {w.layer for w in without.plan.weights}
    assert {e.node for e in with_data.plan.edges} == {e.node for e in without.plan.edges}


def test_analytic_correction_brings_means_back() -> None:
    model = settled("plain")
    scheme = {"weight_bits": 3, "ends": Bits(), "rounding": Nearest()}
    means = []
    for correct in (False, True):
        free = DataFree(bias_correction=correct)
        quantized = ptq(model, (X[:1],), None, Scheme(data_free=free, **scheme))  # type: ignore[arg-type]
        with torch.no_grad():
            means.append((quantized(X) - model(X)).mean(0).square().mean())
    assert means[1] < 0.6 * means[0]


def test_ranges_are_sigmas_around_the_mean_within_the_activation() -> None:
    layer, norm = nn.Conv2d(3, 2, 1, bias=False), nn.BatchNorm2d(2)
    model = nn.Sequential(layer, norm, nn.ReLU(), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)).eval()
    norm.bias.data, norm.weight.data = torch.tensor([1.0, -1.0]), torch.tensor([0.5, -0.25])
    plan = ptq(model, (X[:1],), None, Scheme(data_free=DataFree(sigmas=4.0, input_range=(-2.0, 3.0)))).plan
    span = {e.node: (-e.zero_point * e.scale, (255 - e.zero_point) * e.scale) for e in plan.edges}
    assert span["input_1"] == pytest.approx((-2.0, 3.0), abs=0.02)
    assert span["relu"] == pytest.approx((0.0, 3.0), abs=0.02)
    assert span["conv2d_1"] == pytest.approx((-4.0, 4.0), abs=0.04)


def test_equalization_is_the_default_for_one_scale_only() -> None:
    model = settled("plain")
    assert not ptq(model, (X[:1],)).plan.prepared.scaled
    assert ptq(model, (X[:1],), None, Scheme(weight_granularity=PerTensor())).plan.prepared.scaled


def test_no_norm_no_data() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    with pytest.raises(UnsupportedOperation, match=r"found none.*as it was"):
        ptq(model, (X[:1],))


def test_a_plan_of_another_model_is_refused() -> None:
    model = settled("plain")
    plan = ptq(model, (X[:1],)).plan
    folded = fold.apply(model, fold.plan(model, (X[:1],)))
    with pytest.raises(BadArgument, match="other batch norms"):
        rebuild(folded, (X[:1],), plan)


class Kinds(nn.Module):
    """Norms that can be folded and norms that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn1 = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.up, self.bn2 = nn.ConvTranspose2d(4, 4, 2, groups=2), nn.BatchNorm2d(4, affine=False)
        self.twice, self.bn3, self.bn4 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.fork, self.bn5 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.fc, self.bn6 = nn.Linear(4, 3), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn2(self.up(self.bn1(self.conv(x)).relu())).relu()
        x = self.bn4(self.twice(self.bn3(self.twice(x)).relu())).relu()
        y = self.fork(x)
        out: Tensor = self.bn6(self.fc((self.bn5(y) + y).relu().mean((2, 3))))
        return out


def test_graph_folding_is_exact_and_says_what_it_left() -> None:
    torch.manual_seed(0)
    model = Kinds()
    for _ in range(3):
        model(torch.randn(16, 3, 8, 8))
    model.eval()
    graph = lower(model, (X[:1],))
    folded = fold_norms_(graph)
    with torch.no_grad():
        assert torch.allclose(graph(X[:4]), model(X[:4]), atol=1e-5)
    assert [(p.layer, p.norm) for p in folded.pairs] == [("conv", "bn1"), ("up", "bn2"), ("fc", "bn6")]
    assert [s.where for s in folded.skipped] == ["bn3", "bn4", "bn5"]
    assert len(folded.known) == 6


class Bare(nn.Module):
    """A convolution whose weight is the model's own parameter, a norm behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.bn = nn.Parameter(torch.randn(4, 3, 3, 3) / 5), nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.bn(nn.functional.conv2d(x, self.kernel)).relu())
        return out


@pytest.mark.parametrize("rescue", [None, *RESCUES.values()])
def test_a_weight_of_no_layers_module_is_folded_into_and_not_rescued(rescue: Rescue | None) -> None:
    torch.manual_seed(0)
    model = Bare()
    model(X)
    chosen = None if rescue is None else (rescue,)
    quantized = ptq(model.eval(), (X[:1],), None, Scheme(rescue=chosen))
    assert [(p.layer, p.norm) for p in quantized.plan.prepared.folded] == [("kernel", "bn")]
    assert error(model, quantized) < 0.01
    with torch.no_grad():
        assert torch.equal(rebuild(model, (X[:1],), quantized.plan)(X), quantized(X))
