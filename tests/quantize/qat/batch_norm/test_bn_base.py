"""What all batch norm schemes share: checks, state, mixed precision, compilation."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gracile.errors import BadArgument, UnsupportedOperation
from gracile.quantize.qat.activations import LSQActivation
from gracile.quantize.qat.batch_norm import SCHEMES_OF_BN, QatLayer
from gracile.quantize.qat.convert import final
from gracile.quantize.qat.operation import Operation
from gracile.quantize.qat.weights import WEIGHT_QUANTIZERS
from tests.quantize.qat.batch_norm.pairs import Case, Largest, built, deploys, trained

CASE = Case(rank=2, bias=True, padding=1)
schemes = pytest.mark.parametrize("scheme", SCHEMES_OF_BN.values(), ids=SCHEMES_OF_BN.keys())


def of(scheme: type[QatLayer], *, bits: int = 4) -> tuple[QatLayer, Tensor]:
    """A scheme in training, and a batch."""
    return built(scheme, CASE.pair().float(), bits=bits).train(), CASE.inputs(1)[0].float()


@schemes
def test_the_first_values_of_the_quantizer_come_from_the_weight_that_is_rounded(
    scheme: type[QatLayer],
) -> None:
    seen = []

    class Noting(Largest):
        def start_(self, weight: Tensor) -> None:
            seen.append(weight)

    layer, norm = CASE.pair()
    made = scheme(Operation.of(layer), layer.weight, layer.bias, norm, Noting(4))
    assert len(seen) == 1
    assert torch.equal(seen[0], made.before_rounding())
    slope = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    factor = torch.ones_like(slope) if made.slope_goes == "outside" else slope
    torch.testing.assert_close(seen[0], layer.weight * factor.view(-1, 1, 1, 1))


@schemes
def test_arguments_are_left_as_they_were_but_for_the_norm(scheme: type[QatLayer]) -> None:
    layer, norm = CASE.pair().float()
    before = layer.weight.detach().clone()
    made = scheme(Operation.of(layer), layer.weight, layer.bias, norm, Largest(4))
    with torch.no_grad():
        made.weight.zero_()
    assert torch.equal(layer.weight, before)
    assert made.norm is norm or made.norm is None


@schemes
def test_state_goes_through_a_state_dict(scheme: type[QatLayer]) -> None:
    layer, x = of(scheme)
    layer(x)
    other = of(scheme)[0]
    other.load_state_dict(layer.state_dict())
    assert torch.equal(layer.eval()(x), other.eval()(x))


class HalfOperation:
    """An operation on bfloat16 numbers; biases are added in float32, and all else is left to float32."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation

    def __getattr__(self, name: str) -> Any:
        return getattr(self.operation, name)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = self.operation(x.bfloat16(), weight.bfloat16()).float()
        return y if bias is None else (y + bias.view(-1, 1, 1)).bfloat16().float()


@schemes
@pytest.mark.parametrize("frozen", [False, True])
def test_under_autocast_all_but_the_operation_is_in_float32(scheme: type[QatLayer], frozen: bool) -> None:
    layer, x = of(scheme, bits=8)
    layer.frozen = frozen
    x = x + 100  # means beside which bfloat16 would not hold the differences
    exact = copy.deepcopy(layer)
    exact.operation = HalfOperation(layer.operation)  # type: ignore[assignment]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, exact(x).bfloat16(), rtol=0.01, atol=0.01)
    torch.testing.assert_close(layer.state_dict(), exact.state_dict())
    y.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())


class SideBySide(nn.ModuleList):
    """All layers on the same input."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([layer(x) for layer in self])


def test_all_schemes_compile_whole() -> None:
    layers = [of(scheme)[0] for scheme in SCHEMES_OF_BN.values()]
    for name in ("plain", "krishnamoorthi"):  # means of all batches: PyTorch's own norm does not compile
        layers.append(built(SCHEMES_OF_BN[name], replace(CASE, momentum=None).pair().float()))
    net, x = SideBySide(layers).train(), CASE.inputs(1)[0].float()
    twin = copy.deepcopy(net)
    torch.compiler.reset()
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        y, other = net(x), compiled(x)
        torch.testing.assert_close(y, other)
        y.square().mean().backward()
        other.square().mean().backward()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(net.state_dict(), twin.state_dict())


@schemes
def test_freezing_holds_statistics_and_leaves_parameters_free(scheme: type[QatLayer]) -> None:
    layer, x = of(scheme)
    layer.freeze_()
    before = {name: b.clone() for name, b in layer.named_buffers()}
    layer(x).square().mean().backward()
    assert all(torch.equal(b, before[name]) for name, b in layer.named_buffers())
    assert all(p.grad is not None for p in layer.parameters())
    assert "frozen" in repr(layer)
    layer.unfreeze_()
    assert not layer.frozen


@schemes
def test_a_norm_of_other_width_is_refused(scheme: type[QatLayer]) -> None:
    layer = CASE.layer()
    with pytest.raises(BadArgument, match="a norm of the layer's 3 channels, found one of 4"):
        scheme(Operation.of(layer), layer.weight, None, nn.BatchNorm2d(4), Largest(4))


@schemes
def test_norms_without_statistics_or_with_a_forward_of_their_own_are_refused(
    scheme: type[QatLayer],
) -> None:
    class WithActivation(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).relu()

    layer = CASE.layer()
    for norm, why in (
        (nn.BatchNorm2d(3, track_running_stats=False), "BatchNorm2d that keeps no statistics"),
        (WithActivation(3), "WithActivation that may do more than normalise"),
    ):
        with pytest.raises(UnsupportedOperation, match=why):
            scheme(Operation.of(layer), layer.weight, None, norm, Largest(4))


@schemes
def test_a_norm_is_wanted(scheme: type[QatLayer]) -> None:
    layer = CASE.layer()
    with pytest.raises(BadArgument, match="wanted a batch norm, found none"):
        scheme(Operation.of(layer), layer.weight, None, None, Largest(4))


def test_scales_along_inputs_are_refused() -> None:
    layer, norm = CASE.pair()
    with pytest.raises(BadArgument, match="scales along axis 0 of the weight of conv2d, found axis 1"):
        SCHEMES_OF_BN["plain"](
            Operation.of(layer), layer.weight, None, norm, Largest(4, axis=1, channels=CASE.width)
        )


@schemes
def test_rounding_costs_less_the_more_bits_there_are(scheme: type[QatLayer]) -> None:
    x = CASE.inputs(1)[0].float()
    exact = CASE.pair().float().eval()(x).detach()
    errors = []
    for bits in (2, 4, 6, 8):
        y = of(scheme, bits=bits)[0].eval()(x).detach()
        errors.append(float((y - exact).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert math.sqrt(errors[-1]) < 0.05 * float(exact.std())


@schemes
@pytest.mark.parametrize("name", WEIGHT_QUANTIZERS)
def test_every_quantizer_trains_and_deploys(scheme: type[QatLayer], name: str) -> None:
    kind = WEIGHT_QUANTIZERS[name]
    bits = max(b for b in kind.BITS if b <= 4)
    for axis in (None, 0):
        (layer, norm), operation = CASE.pair().float(), Operation.of(CASE.layer())
        quantizer = kind(bits, axis=axis, channels=None if axis is None else 3)
        made = trained(scheme(operation, layer.weight, layer.bias, norm, quantizer), CASE.inputs(3))
        x = CASE.inputs(1)[0].float()
        assert made(x).isfinite().all()
        if name == "ttq":
            with pytest.raises(UnsupportedOperation):
                made.deployed()
        else:
            deploys(made, x)


def with_a_channel_of_zeros() -> nn.Sequential:
    """A layer and its norm, whose variance next to zero makes a large slope."""
    pair = CASE.pair().float()
    layer, norm = pair
    with torch.no_grad():
        layer.weight[1], layer.bias[1] = 0, 0
        norm.running_mean[1], norm.running_var[1], norm.bias[1] = 0, 1e-8, 0.8
    return pair


@schemes
@pytest.mark.parametrize("name", ["lsq", "minmax", "dorefa", "xnor"])
def test_a_channel_of_zeros_keeps_its_bias(scheme: type[QatLayer], name: str) -> None:
    """A pruned channel gives beta alone, however large the slope that its variance next to zero makes."""
    (layer, norm), operation = with_a_channel_of_zeros(), Operation.of(CASE.layer())
    kind = WEIGHT_QUANTIZERS[name]
    bits = min(kind.BITS)
    made = scheme(operation, layer.weight, layer.bias, norm, kind(bits, axis=0, channels=3))
    reads = LSQActivation(8)
    reads.start_(-4.0, 4.0)
    made.reads = (reads,)
    _, bias = made.eval().effective()
    assert bias is not None
    assert bias[1].item() == pytest.approx(0.8, abs=1e-6)
    found = final(made, reads.grid()[0])
    assert found.bias[1].item() == pytest.approx(0.8, abs=1e-6)
    assert found.scale is not None
    step = found.scale[1] * reads.grid()[0]
    assert (torch.round(found.bias[1] / step) * step).item() == pytest.approx(0.8, abs=1e-6)


def test_with_one_scale_a_channel_of_zeros_keeps_its_bias_where_the_slope_makes_scales_of_it() -> None:
    (layer, norm), operation = with_a_channel_of_zeros(), Operation.of(CASE.layer())
    made = SCHEMES_OF_BN["plain"](operation, layer.weight, layer.bias, norm, Largest(4))
    reads = LSQActivation(4)
    reads.start_(-4.0, 4.0)
    made.reads = (reads,)
    _, bias = made.eval().effective()
    assert bias is not None
    assert bias[1].item() == pytest.approx(0.8, abs=1e-6)


def test_a_scheme_that_rounds_by_running_statistics_says_that_they_are_missing() -> None:
    for name in ("frozen", "two_convolutions", "krishnamoorthi", "one_convolution"):
        made, x = of(SCHEMES_OF_BN[name])
        assert made.norm is not None
        made.norm.running_mean = made.norm.running_var = None
        made.norm.track_running_stats = False
        with pytest.raises(UnsupportedOperation, match=r"being estimated anew\. Take the scheme plain"):
            made.eval()(x)
