"""Every technique trains: few bits cost a small network its accuracy, and training brings it back."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from gracile.quantize.qat.activations import ACTIVATION_QUANTIZERS
from gracile.quantize.qat.weights import WEIGHT_QUANTIZERS


class Layer(nn.Module):
    """Activation, rounded weight and batch norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * (2 / inputs) ** 0.5)
        self.norm = nn.BatchNorm1d(outputs)
        self.quantizer: nn.Module = nn.Identity()
        self.activation: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.activation(x) @ self.quantizer(self.weight).T)
        return y


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    found = load_digits()
    return torch.tensor(found.data, dtype=torch.float32) / 16, torch.tensor(found.target)


def train(model: nn.Module, steps: int) -> None:
    x, y = digits()
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(steps):
        some = torch.randint(1200, (64,), generator=generator)
        loss = nn.functional.cross_entropy(model(x[some]), y[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    x, y = (part[1200:] for part in digits())
    return float((model.eval()(x).argmax(1) == y).float().mean())


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(Layer(64, 32), nn.ReLU(), Layer(32, 32), nn.ReLU(), Layer(32, 10))
    train(model, 150)
    assert accuracy(model) > 0.93
    return model


@pytest.mark.parametrize("name", list(WEIGHT_QUANTIZERS))
def test_weights_of_the_fewest_bits_learn(name: str, network: nn.Sequential) -> None:
    model, kind = copy.deepcopy(network), WEIGHT_QUANTIZERS[name]
    for index in (0, 2, 4):
        layer = model[index]
        layer.quantizer = kind.of(layer.weight.detach(), bits=kind.BITS[0], axis=0)
    before = accuracy(model)
    train(model, 100)
    after = accuracy(model)
    assert after > 0.8
    assert after > before + 0.05


@pytest.mark.parametrize("name", list(ACTIVATION_QUANTIZERS))
def test_activations_of_one_bit_learn(name: str, network: nn.Sequential) -> None:
    model, (x, _) = copy.deepcopy(network), digits()
    for index in (2, 4):
        seen = model[:index].eval()(x[:1200]).detach()
        quantizer = ACTIVATION_QUANTIZERS[name](1)
        quantizer.start_(0.0, float(seen.quantile(0.98)))
        model[index].activation = quantizer
    before = accuracy(model)
    train(model, 100)
    after = accuracy(model)
    assert after > (0.75 if name == "ema" else 0.85)  # a moving range spans outliers too
    assert after > before
