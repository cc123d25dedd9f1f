"""Which layers can be fitted, and where their affine tails end."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gracile.graph import capture
from gracile.prune.layers import affine, find_layers, tensors
from gracile.prune.walk import Walk


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
    held = tensors(net)
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
    scale, shift = affine(captured, layers["0"].norm, tensors(net))
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
