"""Derivatives in the weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from gracile.prune.criteria.slopes import weight_gradients
from gracile.testing.contract import fingerprint
from tests.prune.scenes import scene_of


def test_they_are_those_of_backward(residual, data, labels) -> None:
    scene = scene_of(residual, data, labels)
    inputs, targets = scene.labelled[1]
    found = weight_gradients(scene, (inputs, targets))
    twin = copy.deepcopy(residual).eval()
    nn.functional.cross_entropy(twin(*inputs), targets).backward()
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


def test_factors_move_the_point(residual, data, labels) -> None:
    scene = scene_of(residual, data, labels)
    half = {"conv1.weight": torch.full_like(residual.conv1.weight, 0.5)}
    found = weight_gradients(scene, scene.labelled[0], half)
    twin = copy.deepcopy(residual)
    twin.conv1.weight.data.mul_(0.5)
    wanted = weight_gradients(scene_of(twin, data, labels), scene.labelled[0])
    torch.testing.assert_close(found["conv1.weight"], wanted["conv1.weight"])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.b.weight = self.a.weight
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.head(self.b(self.a(x).relu()).relu())


def test_shared_weights_and_buffers_that_count() -> None:
    model = Tied().train()
    before = fingerprint(model)
    x, y = torch.randn(8, 4), torch.zeros(8, dtype=torch.long)
    plain = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    scene = scene_of(plain, x)
    scene = type(scene)(model=model, provenance=scene.provenance, groups=())
    found = weight_gradients(scene, ((x,), y))
    assert torch.equal(found["a.weight"], found["b.weight"])
    assert found["a.weight"].abs().sum() > 0
    assert fingerprint(model) == before
