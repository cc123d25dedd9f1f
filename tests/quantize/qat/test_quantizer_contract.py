"""What every trainable quantizer promises, over both registries."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.nn import ActivationQuantizer
from gracile.quantize.qat.activations import ACTIVATION_QUANTIZERS, TrainableActivation
from gracile.quantize.qat.weights import TTQ, WEIGHT_QUANTIZERS, WeightQuantizer

WEIGHTS = [
    (name, bits) for name, kind in WEIGHT_QUANTIZERS.items() for bits in sorted({*kind.BITS} & {1, 2, 8})
]
ACTIVATIONS = [(name, bits) for name in ACTIVATION_QUANTIZERS for bits in (1, 2, 8)]
AXES = [None, 0, 1]
weights = hnp.arrays("float32", (3, 2, 4), elements=st.floats(-4, 4, width=32))
values = hnp.arrays("float32", (5, 3), elements=st.floats(-20, 20, width=32))
few = settings(max_examples=12)


def weight_of(name: str, bits: int, axis: int | None, seed: int = 0) -> tuple[WeightQuantizer, Tensor]:
    weight = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(seed))
    return WEIGHT_QUANTIZERS[name].of(weight, bits=bits, axis=axis), weight


def activation_of(name: str, bits: int) -> TrainableActivation:
    quantizer = ACTIVATION_QUANTIZERS[name](bits)
    quantizer.start_(0.0, 2.7)
    return quantizer


def product(quantizer: WeightQuantizer, weight: Tensor) -> Tensor:
    """Integers times scale, or what the codebook holds for them."""
    integers = quantizer.integers(weight)
    if not isinstance(quantizer, TTQ):
        return integers.float() * quantizer.spread(quantizer.scale(weight), weight)
    levels = quantizer.levels()
    if quantizer.axis is None:
        return levels[integers.long() + 1]
    shape = [1] * weight.dim()
    shape[quantizer.axis] = -1
    rows = torch.arange(len(levels)).reshape(shape).expand(weight.shape)
    return levels[rows, integers.long() + 1]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(("name", "bits"), WEIGHTS)
def test_what_is_trained_is_integers_times_scale(name: str, bits: int, axis: int | None) -> None:
    quantizer, _ = weight_of(name, bits, axis)

    @few
    @given(weights)
    def check(array: object) -> None:
        weight = torch.as_tensor(array)
        before = weight.clone()
        for mode in (True, False):
            rounded = quantizer.train(mode)(weight)
            assert rounded.dtype == torch.float32
            assert torch.equal(rounded, product(quantizer, weight))
        assert torch.equal(weight, before)
        integers = quantizer.integers(weight)
        assert integers.dtype == torch.int8
        assert integers.shape == weight.shape
        assert int(integers.abs().max()) <= quantizer.qmax
        assert bits > 1 or bool((integers != 0).all())

    check()


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(("name", "bits"), [case for case in WEIGHTS if case[0] != "ttq"])
def test_scales_are_positive_and_run_along_the_axis(name: str, bits: int, axis: int | None) -> None:
    quantizer, weight = weight_of(name, bits, axis)
    for seen in (weight, torch.zeros_like(weight)):
        scale = quantizer.scale(seen)
        assert scale.shape == (() if axis is None else (weight.shape[axis],))
        assert scale.dtype == torch.float32
        assert not scale.requires_grad
        assert bool((scale > 0).all())


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(("name", "bits"), WEIGHTS)
def test_weights_that_are_zero_stay_zero(name: str, bits: int, axis: int | None) -> None:
    zero = torch.zeros(3, 2, 4, requires_grad=True)
    quantizer = WEIGHT_QUANTIZERS[name].of(zero.detach(), bits=bits, axis=axis)
    rounded = quantizer(zero)
    assert float(rounded.detach().abs().max()) < 1e-11
    rounded.sum().backward()
    assert zero.grad is not None
    assert bool(torch.isfinite(zero.grad).all())


@pytest.mark.parametrize(("name", "bits"), WEIGHTS)
def test_one_scale_for_each_channel_is_channels_one_by_one(name: str, bits: int) -> None:
    quantizer, weight = weight_of(name, bits, 0)
    rounded = quantizer(weight)
    for row, own in zip(weight, rounded, strict=True):
        torch.testing.assert_close(WEIGHT_QUANTIZERS[name].of(row, bits=bits)(row), own)


@pytest.mark.parametrize(("name", "bits"), WEIGHTS)
def test_a_weight_quantizer_that_is_off_changes_nothing(name: str, bits: int) -> None:
    quantizer, weight = weight_of(name, bits, 0)
    quantizer.enabled = False
    weight.requires_grad_()
    out = quantizer(weight)
    assert torch.equal(out, weight)
    out.sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert all(p.grad is not None and not p.grad.any() for p in quantizer.parameters())
    assert quantizer.half()(weight.detach().half()).dtype == torch.float16


@pytest.mark.parametrize(("name", "bits"), WEIGHTS)
def test_a_weight_quantizer_gives_gradients_to_all_that_learns(name: str, bits: int) -> None:
    quantizer, weight = weight_of(name, bits, 0)
    weight.requires_grad_()
    (quantizer(weight) * torch.randn(3, 2, 4)).sum().backward()
    for tensor in (weight, *quantizer.parameters()):
        assert tensor.grad is not None
        assert bool(torch.isfinite(tensor.grad).all())
        assert float(tensor.grad.abs().sum()) > 0


@pytest.mark.parametrize(("name", "bits"), WEIGHTS)
def test_a_weight_quantizer_is_its_state(name: str, bits: int) -> None:
    quantizer, weight = weight_of(name, bits, 0)
    other = WEIGHT_QUANTIZERS[name](bits, axis=0, channels=3)
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other(weight), quantizer(weight))


@pytest.mark.parametrize(("name", "bits"), WEIGHTS)
def test_weights_are_rounded_in_float32_under_autocast(name: str, bits: int) -> None:
    quantizer, weight = weight_of(name, bits, 0)
    weight.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = quantizer(weight)
        loss = nn.functional.linear(torch.ones(2, 8), inside.flatten(1)).float().sum()
    assert torch.equal(inside, quantizer(weight))
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert quantizer(weight.detach().bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("name", list(WEIGHT_QUANTIZERS))
def test_weight_quantizers_compile_as_one_graph(name: str) -> None:
    quantizer, weight = weight_of(name, WEIGHT_QUANTIZERS[name].BITS[0], 0)
    compare_compiled(quantizer, weight)


@pytest.mark.parametrize("name", list(WEIGHT_QUANTIZERS))
def test_weight_quantizers_name_their_bits(name: str) -> None:
    with pytest.raises(BadArgument, match="bits"):
        WEIGHT_QUANTIZERS[name](9)
    bits = WEIGHT_QUANTIZERS[name].BITS[0]
    with pytest.raises(BadArgument, match="channels"):
        WEIGHT_QUANTIZERS[name](bits, axis=0)
    assert str(bits) in repr(WEIGHT_QUANTIZERS[name](bits))


@pytest.mark.parametrize(("name", "bits"), ACTIVATIONS)
def test_evaluation_is_the_quantizer_that_is_deployed(name: str, bits: int) -> None:
    @few
    @given(values, st.floats(-10, 0), st.floats(0, 10))
    def check(array: object, low: float, high: float) -> None:
        quantizer = ACTIVATION_QUANTIZERS[name](bits).eval()
        quantizer.start_(low if name != "pact" else 0.0, high)
        x = torch.as_tensor(array)
        scale, zero_point, qmin, qmax = quantizer.grid()
        assert scale > 0
        assert 0 == qmin <= zero_point <= qmax == 2**bits - 1
        rounded = quantizer(x)
        assert torch.equal(rounded, ActivationQuantizer("n", scale, zero_point, qmin, qmax, bits)(x))
        assert torch.equal(quantizer(torch.zeros(2)), torch.zeros(2))
        quantizer.observing = False
        assert torch.equal(quantizer.train()(x), rounded)

    check()


@pytest.mark.parametrize(("name", "bits"), ACTIVATIONS)
def test_an_activation_quantizer_that_is_off_changes_nothing(name: str, bits: int) -> None:
    quantizer = activation_of(name, bits)
    quantizer.enabled = False
    x = torch.randn(4, 3, requires_grad=True)
    out = quantizer(x)
    assert torch.equal(out, x)
    out.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones_like(x))
    assert all(p.grad is not None and not p.grad.any() for p in quantizer.parameters())


@pytest.mark.parametrize(("name", "bits"), ACTIVATIONS)
def test_gradients_of_activations_end_with_the_range(name: str, bits: int) -> None:
    quantizer = activation_of(name, bits)
    quantizer.observing = False
    scale, zero_point, _, qmax = quantizer.grid()
    x = torch.tensor([-1.0, 0.3, 0.999, 1.001, 1e3]) * scale * (qmax - zero_point)
    x.requires_grad_()
    quantizer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0, 0]
    for parameter in quantizer.parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs()) > 0


@pytest.mark.parametrize("name", list(ACTIVATION_QUANTIZERS))
def test_an_activation_quantizer_is_its_state(name: str) -> None:
    quantizer = activation_of(name, 4)
    quantizer(3 * torch.rand(10, 10))
    other = ACTIVATION_QUANTIZERS[name](4).eval()
    other.load_state_dict(quantizer.state_dict())
    x = torch.randn(20)
    assert torch.equal(other(x), quantizer.eval()(x))
    assert other.grid() == quantizer.grid()


@pytest.mark.parametrize("name", list(ACTIVATION_QUANTIZERS))
def test_only_training_and_observing_move_the_state(name: str) -> None:
    quantizer = activation_of(name, 4)
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    quantizer.eval()(torch.randn(50) * 9)
    quantizer.train().observing = False
    quantizer(torch.randn(50) * 9)
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())


@pytest.mark.parametrize("name", list(ACTIVATION_QUANTIZERS))
def test_activations_are_rounded_in_float32_under_autocast(name: str) -> None:
    quantizer = activation_of(name, 4)
    quantizer.observing = False
    x = torch.rand(3, 8, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = quantizer(x)
        nn.functional.linear(y, torch.ones(2, 8)).float().sum().backward()
    assert y.dtype == torch.float32
    assert torch.equal(y, quantizer(x.detach().float()))
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in quantizer.parameters())


@pytest.mark.parametrize("name", list(ACTIVATION_QUANTIZERS))
def test_activation_quantizers_compile_as_one_graph(name: str) -> None:
    compare_compiled(activation_of(name, 3), torch.randn(6, 4))


@pytest.mark.parametrize("name", list(ACTIVATION_QUANTIZERS))
def test_ranges_that_are_none_are_refused(name: str) -> None:
    quantizer = ACTIVATION_QUANTIZERS[name](4)
    for low, high in ((1.0, -1.0), (float("nan"), 1.0), (0.0, float("inf"))):
        with pytest.raises(BadArgument, match="finite ends"):
            quantizer.start_(low, high)
    with pytest.raises(BadArgument, match="bits"):
        ACTIVATION_QUANTIZERS[name](0)
    assert "4 bits" in repr(quantizer)


@pytest.mark.parametrize("name", [name for name, kind in WEIGHT_QUANTIZERS.items() if len(kind.BITS) > 1])
def test_weights_change_their_bits(name: str) -> None:
    quantizer, weight = weight_of(name, 8, 0)
    quantizer.change_bits_(3, 2 * weight)
    fresh = WEIGHT_QUANTIZERS[name].of(2 * weight, bits=3, axis=0)
    assert torch.equal(quantizer(weight), fresh(weight))
    with pytest.raises(BadArgument, match="bits"):
        quantizer.change_bits_(9, weight)


@pytest.mark.parametrize("name", list(ACTIVATION_QUANTIZERS))
def test_activations_change_their_bits_and_keep_their_range(name: str) -> None:
    quantizer = activation_of(name, 8).eval()
    top = float(quantizer(torch.tensor([1e9])).detach())
    quantizer.change_bits_(2)
    assert quantizer.grid()[3] == 3
    assert float(quantizer(torch.tensor([1e9])).detach()) == pytest.approx(top)
    assert len(quantizer(torch.linspace(-1, 4, 500)).unique()) == 4
    with pytest.raises(BadArgument, match="bits"):
        quantizer.change_bits_(9)


@pytest.mark.parametrize("name", list(WEIGHT_QUANTIZERS))
def test_what_is_not_a_number_is_not_hidden(name: str) -> None:
    quantizer, weight = weight_of(name, WEIGHT_QUANTIZERS[name].BITS[0], 0)
    for parameter in quantizer.parameters():
        parameter.data.fill_(float("nan"))
    weight[0, 0, 0] = float("nan")
    assert bool(quantizer(weight).isnan().any())


def compare_compiled(quantizer: nn.Module, x: Tensor) -> None:
    """Outputs, gradients and state of one step are those of the module itself."""

    def run(function: Callable[[Tensor], Tensor]) -> list[Tensor]:
        own = x.clone().requires_grad_()
        y = function(own)
        quantizer.zero_grad()
        (y * torch.linspace(-1, 2, x.numel()).reshape(x.shape)).sum().backward()
        assert own.grad is not None
        return [y, own.grad, *[p.grad.clone() for p in quantizer.parameters() if p.grad is not None]]

    start = {key: value.clone() for key, value in quantizer.state_dict().items()}
    plain, after = run(quantizer), {key: value.clone() for key, value in quantizer.state_dict().items()}
    quantizer.load_state_dict(start)
    torch.compiler.reset()
    compiled = run(torch.compile(quantizer, backend="aot_eager", fullgraph=True))
    assert len(plain) == len(compiled)
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(one, other)
    assert all(torch.equal(value, after[key]) for key, value in quantizer.state_dict().items())
