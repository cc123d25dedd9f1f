"""Derivatives at gates and activations, against differences and hooks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gracile.prune.criteria.examples import cross_entropy
from gracile.prune.criteria.gates import activation_means, gate_gradients
from gracile.testing import net
from gracile.testing.contract import fingerprint
from tests.prune.scenes import gate_differences, scene_of


def slopes(scene):
    return gate_gradients(scene, lambda outputs, targets: scene.loss(outputs, targets).sum())


def test_they_are_what_scaling_the_readers_does(net, data, labels) -> None:
    net, x, y = net.double(), data[:12].double(), labels[:12]
    scene = scene_of(net, x, y, size=4)
    found = slopes(scene)
    for group in scene.groups:
        wanted = gate_differences(net, group, x, y)
        np.testing.assert_allclose(found[group.name], wanted, atol=1e-6 * max(np.abs(wanted).max(), 1e-3))
        assert np.abs(wanted).max() > 1e-6


@pytest.mark.parametrize("name", ["grouped", "depthwise", "concat", "upsampling", "attention", "sequence"])
def test_every_group_of_every_kind_of_net_gets_numbers(name) -> None:
    model, inputs = net(name)
    if not inputs[0].is_floating_point():
        pytest.skip("not for words")
    x = torch.randn(4, *inputs[0].shape[1:], generator=torch.Generator().manual_seed(0))
    scene = scene_of(
        model.eval(), x, size=2, loss=lambda outputs, targets: outputs.flatten(1).square().sum(1)
    )
    found = slopes(scene)
    assert scene.groups
    for group in scene.groups:
        assert found[group.name].shape == (4, group.units)
        assert group.readers or np.abs(found[group.name]).max() > 0
        if group.readers and name != "attention":
            total = sum(float((p * s).sum()) for p, s in _reader_products(model, x, group))
            assert found[group.name].sum() == pytest.approx(total, rel=1e-3, abs=1e-5)


def _reader_products(model, x, group):
    """Weight times derivative of what reads the group's channels, for the whole batch."""
    params = dict(model.named_parameters())
    chosen = list(group.readers)
    loss = model(x).flatten(1).square().sum()
    grads = torch.autograd.grad(loss, [params[s.param] for s in chosen])
    for slot, grad in zip(chosen, grads, strict=True):
        index = torch.from_numpy(slot.index.reshape(-1))
        yield params[slot.param].detach().index_select(slot.axis, index), grad.index_select(slot.axis, index)


def test_nothing_of_the_model_changes(residual, data, labels) -> None:
    residual.train()
    residual.conv1.weight.requires_grad_(False)
    residual.conv2.weight.grad = torch.ones_like(residual.conv2.weight)
    before = fingerprint(residual)
    slopes(scene_of(residual, data, labels))
    activation_means(scene_of(residual, data), torch.abs)
    assert fingerprint(residual) == before
    assert torch.equal(residual.conv2.weight.grad, torch.ones_like(residual.conv2.weight))


def test_activations_are_those_that_layers_read(residual, data) -> None:
    seen: dict[str, torch.Tensor] = {}
    layers = {"conv1": residual.conv1, "conv3": residual.conv3, "down": residual.down}
    hooks = [
        m.register_forward_pre_hook(lambda m, args, n=n: seen.update({n: args[0].double()}))
        for n, m in layers.items()
    ]
    with torch.no_grad():
        residual(data)
    for hook in hooks:
        hook.remove()
    found = activation_means(scene_of(residual, data), torch.square)["stem"]
    wanted = np.stack([seen[n].square().mean((0, 2, 3)).numpy() for n in layers])
    np.testing.assert_allclose(np.sort(found, 0), np.sort(wanted, 0), rtol=1e-5)


def test_flattened_channels_are_counted_together(data) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 36, 3)).eval()
    with torch.no_grad():
        wanted = model[:2](data).double().mean((0, 2, 3)).numpy()
    np.testing.assert_allclose(activation_means(scene_of(model, data), torch.abs)["0"][0], wanted, rtol=1e-5)


def test_operations_in_place_are_no_obstacle(data, labels) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 6), nn.Flatten()
    ).double()
    scene = scene_of(model.eval(), data[:8].double(), labels[:8], size=8)
    found = slopes(scene)["0"]
    wanted = gate_differences(model, scene.groups[0], data[:8].double(), labels[:8])
    np.testing.assert_allclose(found, wanted, atol=1e-8)
    assert cross_entropy(model(data[:8].double()), labels[:8]).shape == (8,)
