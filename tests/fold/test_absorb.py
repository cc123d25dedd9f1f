"""What a layer takes in: exact for all strides, paddings, dilations and groups, at both of its sides."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.fold.absorb import absorb_, numbers_of, pads_zeros, prepare_, takes_shift
from gracile.nn import parts_of
from gracile.records import FoldMove, FoldPart

KINDS = {
    (axes, transposed): getattr(nn, f"Conv{'Transpose' * transposed}{axes}d")
    for axes in (1, 2, 3)
    for transposed in (False, True)
}


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    axes, transposed = draw(st.sampled_from([1, 2, 2, 3])), draw(st.booleans())
    torch.manual_seed(draw(st.integers(0, 2**31)))
    groups = draw(st.sampled_from([1, 1, 2, 4]))

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    stride = sizes(1, 3)
    padding = "same" if not transposed and set(stride) == {1} and draw(st.booleans()) else sizes(0, 2)
    kernel = sizes(1, 3)
    if padding == "same":
        kernel = tuple(k + 1 - k % 2 for k in kernel)  # PyTorch warns of even ones
    made: nn.Module = KINDS[axes, transposed](
        4, 4 * draw(st.integers(1, 2)), kernel, stride=stride, padding=padding, dilation=sizes(1, 2),
        groups=groups, bias=draw(st.booleans()),
    )  # fmt: skip
    return made.double()


def holder(layer: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict({"it": layer})


def shaped(vector: Tensor, like: Tensor) -> Tensor:
    return vector.view(1, -1, *[1] * (like.dim() - 2))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(convolutions(), st.booleans(), st.sampled_from([0.0, 1.0, -0.5]), st.data())
def test_convolutions(layer: nn.Module, undo: bool, share: float, data: st.DataObject) -> None:
    """``v' = a v + share c``, or its inverse, of outputs and of inputs, of some channels."""
    side = data.draw(st.sampled_from(["in", "out"]))
    x = torch.randn(2, 4, *[9, 8, 7][: layer.weight.dim() - 2]).double()
    try:
        with torch.no_grad():
            wanted = layer(x)
    except RuntimeError:  # the image is too small
        return
    width = 4 if side == "in" else wanted.shape[1]
    start = data.draw(st.integers(0, width - 1))
    count = data.draw(st.integers(1, width - start))
    scale, shift = torch.rand(width).double() + 0.3, torch.randn(width).double()
    a, c = torch.ones(width).double(), torch.zeros(width).double()
    a[start : start + count], c[start : start + count] = scale[:count], share * shift[:count]
    if side == "in" and share and not takes_shift(layer):
        return
    space = tuple(x.shape[2:]) if side == "in" and share and pads_zeros(layer) else ()
    part = FoldPart(layer="it", side=side, start=start, count=count, channel=0, share=share, undo=undo,
                    space=space)  # fmt: skip
    net = holder(copy.deepcopy(layer))
    absorb_(net, part, scale, shift)
    values = x if side == "in" else wanted
    a, c = shaped(a, values), shaped(c, values)
    values = (values - c) / a if undo else values * a + c
    with torch.no_grad():
        found = net["it"](values if side == "in" else x)
        torch.testing.assert_close(found, wanted if side == "in" else values, rtol=1e-9, atol=1e-9)
    fresh = holder(copy.deepcopy(layer))
    prepare_(fresh, part)
    assert {k: v.shape for k, v in fresh.state_dict().items()} == {
        k: v.shape for k, v in net.state_dict().items()
    }


@pytest.mark.parametrize("undo", [False, True])
@pytest.mark.parametrize("side", ["in", "out"])
@pytest.mark.parametrize(
    "layer",
    [nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False)],
)
def test_linear_layers_and_norms(layer: nn.Module, side: str, undo: bool) -> None:
    layer = copy.deepcopy(layer).double().eval()
    if isinstance(layer, nn.BatchNorm1d):
        nn.init.normal_(layer.running_mean)
        nn.init.uniform_(layer.running_var, 0.5, 2)
    x, scale, shift = torch.randn(3, 4).double(), torch.rand(2).double() + 0.3, torch.randn(2).double()
    wanted, net = layer(x), holder(copy.deepcopy(layer)).eval()
    absorb_(
        net, FoldPart(layer="it", side=side, start=0, count=4, channel=0, repeat=2, undo=undo), scale, shift
    )
    a, c = scale.repeat_interleave(2), shift.repeat_interleave(2)
    values = x if side == "in" else wanted
    values = (values - c) / a if undo else values * a + c
    torch.testing.assert_close(net["it"](values if side == "in" else x), wanted if side == "in" else values)


def test_two_maps_on_one_layer_add_up() -> None:
    """Two norms before one padded layer, of different channels."""
    layer, x = nn.Conv2d(4, 3, 3, padding=1, stride=2).double(), torch.randn(1, 4, 7, 7).double()
    net = holder(copy.deepcopy(layer))
    scale, shift = torch.rand(2).double() + 0.5, torch.randn(2).double()
    for start in (0, 2):
        part = FoldPart(layer="it", side="in", start=start, count=2, channel=0, undo=True, space=(7, 7))
        absorb_(net, part, scale, shift)
    a, c = scale.repeat(2).view(-1, 1, 1), shift.repeat(2).view(-1, 1, 1)
    torch.testing.assert_close(net["it"](x), layer(a * x + c))
    assert list(parts_of(net["it"])) == ["border"]
    out = FoldPart(layer="it", side="out", start=0, count=2, channel=0)
    absorb_(net, out, scale, shift)  # the map is scaled with the outputs
    a, c = torch.ones(3, 1, 1).double(), torch.zeros(3, 1, 1).double()
    wanted = layer(scale.repeat(2).view(-1, 1, 1) * x + shift.repeat(2).view(-1, 1, 1))
    a[:2, 0, 0], c[:2, 0, 0] = scale, shift
    torch.testing.assert_close(net["it"](x), a * wanted + c)


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(3)])
def test_other_layers_are_refused(layer: nn.Module) -> None:
    part = FoldPart(layer="it", side="in", start=1, count=3, channel=0)
    with pytest.raises(BadArgument, match="Make the plan anew"):
        absorb_(holder(layer), part, torch.ones(3).double(), torch.ones(3).double())


def test_a_module_whose_numbers_are_not_by_channel_is_refused() -> None:
    class Grid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.by_place = nn.Parameter(torch.randn(3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.by_place

    with pytest.raises(BadArgument, match="scale and shift a channel"):
        numbers_of(Grid(), FoldMove(norm="g", parts=(), channels=3))
