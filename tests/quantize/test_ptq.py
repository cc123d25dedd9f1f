"""Post-training quantization of tiny networks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gracile.errors import BadArgument, NonFiniteError
from gracile.quantize import W8A8, AdaRound, Bits, Blocks, Nearest, PerTensor, Rounding, Scheme, ptq
from gracile.testing import NETS, net
from gracile.testing.contract import fingerprint

SCHEMES = {
    "default": W8A8,
    "per tensor": Scheme(weight_granularity=PerTensor(), activation_range="minmax"),
    "symmetric": Scheme(activation_symmetric=True),
    "minmax": Scheme(weight_range="minmax", activation_range="minmax"),
    "percentile": Scheme(activation_range="percentile", weight_range="percentile", rounding=Nearest()),
    "corrected": Scheme(bias_correction=True),
}


def images(count: int = 32) -> Tensor:
    return torch.randn(count, 3, 8, 8)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).square().sum() / wanted.square().sum()) ** 0.5


@pytest.mark.parametrize("name", NETS)
def test_eight_bits_are_close_to_float(name: str) -> None:
    model, inputs = net(name)
    quantized = ptq(model, inputs, images().split(16), SCHEMES["minmax"])
    x = images()
    with torch.no_grad():
        error = relative_error(quantized(x), model(x))
    assert 0 < error < 0.03
    assert quantized.plan.weights


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_is_close_to_float(scheme: str) -> None:
    model, inputs = net("residual")
    quantized = ptq(model, inputs, images(64).split(16), SCHEMES[scheme])
    x = images()
    with torch.no_grad():
        assert relative_error(quantized(x), model(x)) < 0.05


def test_fewer_bits_are_worse() -> None:
    model, inputs = net("plain")
    x = images()
    errors = []
    for bits in (8, 4, 2):
        scheme = Scheme(weight_bits=bits, activation_bits=bits, ends=Bits(), rounding=Nearest())
        with torch.no_grad():
            errors.append(relative_error(ptq(model, inputs, images().split(16), scheme)(x), model(x)))
    assert errors[0] < errors[1] / 4 < errors[2]


def test_the_model_is_left_as_it_was() -> None:
    model, inputs = net("residual")
    model.train()
    before = fingerprint(model)
    ptq(model, inputs, images().split(16), SCHEMES["minmax"])
    assert fingerprint(model) == before


def test_the_same_data_gives_the_same_plan() -> None:
    model, inputs = net("concat")
    data = images().split(16)
    assert ptq(model, inputs, data).plan == ptq(copy.deepcopy(model), inputs, data).plan


def test_what_runs_in_float_is_recorded() -> None:
    model, inputs = net("depthwise")
    skipped = {entry.where: entry.why for entry in ptq(model, inputs, [images()]).plan.skipped}
    assert "batch_norm has no integer kernel" in skipped["bn1"]
    assert any("sigmoid" in why for why in skipped.values())


def test_the_grid_of_a_symmetric_activation_has_a_fixed_zero() -> None:
    model, inputs = net("plain")
    edges = ptq(model, inputs, [images()], Scheme(activation_symmetric=True)).plan.edges
    assert {edge.zero_point for edge in edges} == {0, 128}


def test_a_convolution_of_zeros_keeps_its_bias() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1))
    with torch.no_grad():
        model[0].weight[0] = 0
        model[0].bias[0] = 0.7
    x = images()
    with torch.no_grad():
        assert relative_error(ptq(model, (x[:1],), [x])(x), model(x)) < 0.02


def test_values_that_are_not_finite_name_the_layer() -> None:
    model, inputs = net("plain")
    with pytest.raises(NonFiniteError, match=r"^x: wanted finite activations"):
        ptq(model, inputs, [images() / 0])
    huge = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    huge[2].weight.data *= 1e38
    huge[2].bias.data += 3e38
    huge[0].weight.data *= 100
    with pytest.raises(NonFiniteError, match=r"^2: wanted finite activations"):
        ptq(huge, inputs, [images()])
    model.conv2.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"^conv2: wanted finite weights.*conv2\.weight"):
        ptq(model, inputs, [images()])


def test_no_calibration_data_is_an_error() -> None:
    model, inputs = net("plain")
    with pytest.raises(BadArgument, match="at least one input"):
        ptq(model, inputs, [])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_model_in_another_precision_is_quantized_from_float32(dtype: torch.dtype, dynamic: bool) -> None:
    model, inputs = net("plain")
    x = images().to(dtype)
    scheme = Scheme(rounding=Nearest(), dynamic=dynamic)
    found = ptq(model.to(dtype), (inputs[0].to(dtype),), x.split(16), scheme)
    with torch.no_grad():
        assert relative_error(found(x), model.float()(x.float())) < 0.03


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("rounding", [AdaRound(iterations=10), Blocks(iterations=2, images=16, bf16=False)])
def test_learning_needs_no_gradients_of_the_caller(mode: Callable[[], Any], rounding: Rounding) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()
    torch.manual_seed(0)
    scheme, x = Scheme(weight_bits=3, ends=Bits(), rounding=rounding), images(16)
    wanted = ptq(model, (x[:1],), [x], scheme)
    with mode():
        found = ptq(model, (x[:1] + 0,), [x + 0], scheme)
    assert found.plan == wanted.plan


def test_one_image_and_values_that_never_change_are_enough() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    ).eval()
    one = torch.randn(1, 3, 12, 12)
    for data in (one, torch.full((8, 3, 12, 12), 123.4), one.repeat(8, 1, 1, 1) * 300):
        quantized = ptq(model, (one,), [data])
        with torch.no_grad():
            assert relative_error(quantized(data), model(data)) < 0.05


class Named(nn.Module):
    """Outputs in a dictionary, of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"one": self.a(x).relu(), "two": self.b(y)}


def test_bias_correction_judges_every_output() -> None:
    x, y = images(16), images(16)
    model = Named().eval()
    quantized = ptq(model, (x[:1], y[:1]), [(x, y)], Scheme(bias_correction=True))
    with torch.no_grad():
        found, wanted = quantized(x, y), model(x, y)
    assert all(relative_error(found[k], wanted[k]) < 0.03 for k in ("one", "two"))
