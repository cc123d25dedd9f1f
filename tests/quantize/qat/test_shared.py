"""Layers that share parameters with something else: tied while they train, and deployed as trained."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracile.quantize import Bits, rebuild
from gracile.quantize.qat import QatModel, QatScheme, prepare


class Words(nn.Module):
    """An embedding and a classifier with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.middle = nn.Linear(8, 8)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.middle(self.embedding(x))))


class OneWeight(nn.Module):
    """Two layers with one weight, each with a bias of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.second(F.relu(self.first(x)))))


class OneNorm(nn.Module):
    """One batch norm behind two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm, self.last = nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.norm(self.second(F.relu(self.norm(self.first(x)))))))


def trained(model: nn.Module, x: Tensor) -> QatModel:
    network = prepare(model.eval(), (x[:1],), [x], QatScheme(ends=Bits())).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(network(x).flatten(1), torch.arange(len(x)) % 4).backward()
        optimizer.step()
    return network.eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


CASES = {
    "an embedding": (Words, torch.arange(10), {"head"}, ["middle"]),
    "a weight": (OneWeight, noise(8, 8), {"first"}, ["last"]),
    "a norm": (OneNorm, noise(8, 3, 2, 2), {"first", "second"}, ["last"]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_tied_trains_tied_and_is_deployed_as_trained(case: str) -> None:
    kind, x, left, layers = CASES[case]
    torch.manual_seed(0)
    model = kind()
    network = trained(model, x)
    assert list(network.layers) == layers
    assert {entry.where for entry in network.skipped if "shares" in entry.why} == left
    deployed = network.convert()
    assert [weight.layer for weight in deployed.plan.weights] == layers
    step = max(edge.scale for edge in deployed.plan.edges)
    written = network.write_back(copy.deepcopy(model))
    again = rebuild(written, (x[:1],), deployed.plan)
    with torch.no_grad():
        assert torch.allclose(deployed(x), network(x), atol=step)
        assert torch.allclose(again(x), deployed(x), atol=1e-5)
    assert len(list(written.parameters())) == len(list(model.parameters()))  # still tied


@pytest.mark.parametrize("case", CASES)
def test_off_it_is_the_float_network(case: str) -> None:
    kind, x, _, _ = CASES[case]
    model = kind().eval()
    network = prepare(model, (x[:1],), [x])
    network.quantize_weights(False)
    network.quantize_activations(False)
    with torch.no_grad():
        assert torch.allclose(network(x), model(x), atol=1e-5)


def test_the_other_reader_is_named() -> None:
    x = torch.arange(10)
    (entry,) = (e for e in prepare(Words().eval(), (x[:1],), [x]).skipped if e.where == "head")
    assert entry.why == "shares head.weight with embedding, so it runs in float"


def test_a_layer_that_runs_twice_shares_with_nobody() -> None:
    layer = nn.Linear(4, 4)
    x = torch.randn(4, 4)
    network = prepare(nn.Sequential(layer, nn.ReLU(), layer).eval(), (x[:1],), [x])
    assert len(network.layers) == 1
    assert not [entry for entry in network.skipped if "shares" in entry.why]
