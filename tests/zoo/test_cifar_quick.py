"""Cifar-quick against its layer sizes written out."""

from __future__ import annotations

import torch

from gracile.zoo import CifarQuick, cifar_quick


def test_parameter_count_by_hand() -> None:
    convolutions = (32 * 3 * 25 + 32) + (32 * 32 * 25 + 32) + (64 * 32 * 25 + 64)
    linears = (64 * 16 * 64 + 64) + (64 * 10 + 10)
    assert sum(p.numel() for p in cifar_quick().parameters()) == convolutions + linears == 145_578


def test_pools_round_up_as_caffes_do() -> None:
    sizes = []
    model = CifarQuick(classes=3)
    for layer in (model.conv1, model.conv2, model.conv3):
        layer.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[2:])))
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    assert sizes == [(32, 32), (16, 16), (8, 8)]
    assert model.fc1.in_features == 64 * 4 * 4
