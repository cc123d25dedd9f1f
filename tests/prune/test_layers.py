"""Which layers can be fitted, and where their affine tails end."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gracile.graph import capture
from gracile.prune.layers import KINDS, affine, find_layers
from gracile.prune.walk import Walk
from gracile.surgery.reference import tensors_of


def found(net: nn.Module, shape=(1, 2, 8, 8)):
    captured = capture(net.eval(), (torch.zeros(shape),))
    return captured, {x.name: x for x in find_layers(captured).values()}


def test_tails_of_a_residual_net(residual) -> None:
    _, layers = found(residual)
    assert set(layers) == {"stem", "conv1", "conv2", "conv3", "conv4", "down", "head"}
    assert layers["conv1"].total is None
    assert layers["conv1"].mean == "norm1.running_mean"
    assert layers["conv2"].end.name == "add"
    assert layers["conv2"].other.name == "relu"  # the stem's output: the shortcut
    assert layers["conv4"].total is layers["down"].total
    assert layers["conv4"].other is layers["down"].norm
    assert layers["head"].bias == "head.bias"
    assert layers["head"].window is None


def test_grouped_transposed_and_shared_layers_are_left_out(depthwise) -> None:
    _, layers = found(depthwise)
    assert set(layers) == {"body.0", "body.2", "body.8", "head"}
    shared = nn.Conv2d(2, 2, 1)
    assert found(nn.Sequential(shared, nn.ReLU(), shared))[1] == {}
    assert found(nn.Sequential(nn.ConvTranspose2d(2, 3, 2)))[1] == {}


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, groups=2, stride=2, padding=1),
        nn.Conv2d(4, 8, 3, groups=4, dilation=2),
        nn.Conv1d(4, 4, 3, groups=4, bias=False),
        nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1),
        nn.ConvTranspose2d(4, 3, 2, stride=3, padding=2, dilation=3),
        nn.ConvTranspose1d(4, 4, 4, stride=2, groups=4),
        nn.ConvTranspose3d(4, 2, 2, stride=2),
    ],
    ids=str,
)
def test_rows_times_the_matrices_of_grouped_and_transposed_layers_are_the_outputs(layer) -> None:
    rank = layer.weight.dim() - 2
    x = torch.randn(2, 4, *[7] * rank)
    captured = capture(layer.eval(), (x,))
    assert not find_layers(captured)
    (found,) = find_layers(captured, KINDS).values()
    weight = layer.weight.detach()
    matrices = found.matrices(weight)
    assert torch.equal(found.weight_of(matrices, weight), weight)
    rows = found.inputs(x).unflatten(1, (found.groups, found.columns))
    got = torch.einsum("rgc,goc->rgo", rows, matrices).flatten(1)
    wanted = found.outputs((layer(x) - (layer(0 * x) if layer.bias is not None else 0)).detach())
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    at = torch.tensor([3, 0])
    torch.testing.assert_close(found.inputs(x, at)[:2], found.inputs(x)[[3, 0]])


def test_transposed_convolutions_in_groups_of_several_channels_are_left_out() -> None:
    layer = nn.ConvTranspose2d(4, 4, 2, groups=2)
    assert not find_layers(capture(layer.eval(), (torch.zeros(1, 4, 4, 4),)), KINDS)


class Scaled(nn.Module):
    def __init__(self, alpha: float, broadcast: bool) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1)
        self.alpha, self.broadcast = alpha, broadcast

    def forward(self, x: Tensor) -> Tensor:
        y = self.other(x)
        return torch.add(
            self.conv(x), y.mean((2, 3), keepdim=True) if self.broadcast else y, alpha=self.alpha
        )


@pytest.mark.parametrize(
    ("alpha", "broadcast", "sums"), [(1, False, True), (2, False, False), (1, True, False)]
)
def test_only_plain_sums_of_one_shape_count(alpha, broadcast, sums) -> None:
    _, layers = found(Scaled(alpha, broadcast))
    assert (layers["conv"].total is not None) is sums


def test_rows_times_weights_are_the_outputs(net, data) -> None:
    captured, layers = found(net, data.shape)
    held = tensors_of(net)
    walk = Walk(captured, held.__getitem__, [(data,)])
    for layer in layers.values():
        rows = layer.inputs(walk(layer.source)[0]) @ held[layer.weight].detach().flatten(1).T
        if layer.bias:
            rows = rows + held[layer.bias].detach()
        torch.testing.assert_close(rows, layer.outputs(walk(layer.node)[0]), rtol=1e-4, atol=1e-4)
        assert layer.columns == held[layer.weight][0].numel()


@pytest.mark.parametrize("with_parameters", [True, False])
def test_affine_is_what_the_norm_does(with_parameters) -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, affine=with_parameters, eps=0.2)).eval()
    nn.init.normal_(net[1].running_mean)
    nn.init.uniform_(net[1].running_var, 0.5, 2)
    captured, layers = found(net)
    scale, shift = affine(captured, layers["0"].norm, tensors_of(net))
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(net[1](x), x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1))


def test_sampled_positions_keep_rows_within_the_bound(residual) -> None:
    _, layers = found(residual)
    draw = torch.Generator().manual_seed(0)
    assert layers["conv1"].positions(1, draw) is None
    at = layers["down"].positions(20_000, draw)
    assert at is not None
    assert len(at) == 1  # 16,384 rows over 20,000 images
    assert layers["head"].positions(10**9, draw) is None
