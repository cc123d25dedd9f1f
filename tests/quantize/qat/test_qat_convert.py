"""What was trained is what is deployed: simulation, ONNX, the original's own class, archives."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracile import export, pack
from gracile.nn import QuantizedModel
from gracile.quantize import Bits, integer_forward, rebuild
from gracile.quantize.qat import SCHEMES_OF_BN, WEIGHT_QUANTIZERS, QatModel, QatScheme, prepare, zeros
from gracile.records import QuantPlan, from_plain, to_plain


def images(count: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.norm1(self.conv(x)) + x)
        return self.fc(x.mean((2, 3)))


def trained(scheme: QatScheme) -> tuple[nn.Module, QatModel]:
    torch.manual_seed(0)
    model = Residual()
    with torch.no_grad():
        for step in range(10):
            model(images(32, step))
        model.norm.weight[1] = -0.7  # the sign goes into the integers
        model.norm1.weight[2] = 0.0  # and nothing is left of this channel
    network = prepare(model.eval(), (images(1),), [images()], scheme).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for step in range(4):
        F.cross_entropy(network(images(32, step)), torch.arange(32) % 4).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, network.eval()


CASES = {
    **{f"{name}, 1 bit": QatScheme(weight_bits=1, weights=name) for name in ("xnor", "dorefa")},
    **{f"{name}, 2 bits": QatScheme(weight_bits=2, weights=name) for name in WEIGHT_QUANTIZERS},
    **{f"norms {name}": QatScheme(batch_norm=name, activation_bits=6) for name in SCHEMES_OF_BN},
    "one scale": QatScheme(weight_bits=3, per_channel=False, batch_norm="krishnamoorthi"),
    "few bits all over": QatScheme(weight_bits=2, activation_bits=2, ends=Bits(), sum_bits=4),
    "one bit": QatScheme(weight_bits=1, activation_bits=1, weights="xnor", activations="unit"),
}


@pytest.mark.parametrize("case", CASES)
def test_deployed_is_what_evaluation_computes(case: str) -> None:
    _, network = trained(CASES[case])
    deployed = network.convert()
    assert isinstance(deployed, QuantizedModel)
    with torch.no_grad():
        found, wanted = deployed(images(16, 9)), network(images(16, 9))
    bias_step = max(float(part.scale.max()) for part in deployed.network.biases.children())  # type: ignore[union-attr,operator,arg-type]
    assert float((found - wanted).abs().mean()) < 0.01 * float(wanted.abs().mean()) + bias_step / 2
    for weight in deployed.plan.weights:
        assert weight.bits == network.layers[weight.layer].quantizer.bits


@pytest.mark.parametrize("case", CASES)
def test_the_original_takes_what_was_learned(case: str) -> None:
    """Its own class with the deployed weights, from which the plan alone makes the same integers."""
    model, network = trained(CASES[case])
    deployed = network.convert()
    plan = from_plain(QuantPlan, to_plain(deployed.plan))
    fresh = network.write_back(copy.deepcopy(model))
    again = rebuild(fresh, (images(1),), plan)
    first, second = dict(deployed.named_buffers()), dict(again.named_buffers())
    assert set(first) == set(second)
    for name, tensor in first.items():
        if name.endswith("integers") and tensor.dtype == torch.int8:
            assert torch.equal(tensor, second[name]), name
        else:
            assert torch.allclose(tensor.double(), second[name].double(), rtol=1e-4, atol=2), name
    with torch.no_grad():
        x = images(8, 3)
        assert torch.allclose(again(x), deployed(x), atol=float(deployed(x).abs().max()) / 100)


@pytest.mark.parametrize("case", ["norms plain", "few bits all over", "one bit", "twn, 2 bits"])
def test_onnx_runtime_computes_the_same(case: str, tmp_path: Path) -> None:
    _, network = trained(CASES[case])
    deployed = network.convert()
    file = tmp_path / "m.onnx"
    export.onnx(deployed, (images(1),), file)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    x = images(8, 4)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        wanted = deployed(x).numpy()
    last = max(edge.scale for edge in deployed.plan.edges)
    assert np.abs(found - wanted).max() <= last * 1.01
    assert all(k["integer"] for k in export.kernels(file) if k["bits"] is not None)


def pruned() -> QatModel:
    """A network with channels of zeros, one of them behind a large slope."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    with torch.no_grad():
        net[0].weight[2:4], net[3].weight[1] = 0, 0
        net[1].running_var[2], net[1].bias[2], net[1].bias[3] = 1e-8, 0.8, 0.03
    return prepare(net.eval(), (images(1),), [images()], QatScheme(ends=Bits()))


def test_pruned_channels_are_deployed_with_their_biases(tmp_path: Path) -> None:
    network = pruned()
    deployed, x = network.convert(), images(4, 5)
    export.onnx(deployed, (images(1),), tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    (last,) = (edge.scale for edge in deployed.plan.edges if edge.node == "conv2d_1")
    with torch.no_grad():
        simulated = deployed(x)
        assert float((simulated - network(x)).abs().max()) <= last * 1.01
        assert torch.equal(integer_forward(deployed, x), simulated)
    assert np.abs(found - simulated.numpy()).max() <= last * 1.01
    biases = dict(deployed.network.biases.named_children())  # type: ignore[union-attr]
    kept = biases["conv2d"].integers * biases["conv2d"].scale  # type: ignore[operator]
    assert kept[2:4].tolist() == pytest.approx([0.8, 0.03], abs=1e-6)


def test_an_archive_holds_the_same_bits(tmp_path: Path) -> None:
    _, network = trained(QatScheme(weight_bits=2, weights="twn"))
    deployed = network.convert()
    artifact = pack.save(deployed, tmp_path / "m.gracile", (images(1),))
    with torch.no_grad():
        assert torch.equal(pack.load(tmp_path / "m.gracile")(images(8)), deployed(images(8)))
    assert artifact.size_bytes > 0


def test_two_scales_stay_in_float() -> None:
    _, network = trained(QatScheme(weight_bits=2, weights="ttq"))
    plan = network.convert().plan
    assert [entry.where for entry in plan.skipped] == ["conv"]
    assert "two scales" in plan.skipped[0].why
    assert {weight.layer for weight in plan.weights} == {"stem", "fc"}


def test_zeros_are_counted_as_deployed() -> None:
    _, network = trained(QatScheme(weight_bits=2, weights="twn"))
    deployed = network.convert()
    stored = {part.name: part.integers for part in deployed.network.weights.children()}  # type: ignore[union-attr]
    for name, share in zeros(network).items():
        assert share == pytest.approx(float((stored[name] == 0).float().mean()))
    assert 0.2 < zeros(network)["conv"] < 0.8


class Functional(nn.Module):
    """Weights under names of their own, one of them fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.randn(3, 1, 3, 3))
        self.mix, self.shift = nn.Parameter(torch.randn(4, 3, 1, 1)), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.relu(F.conv2d(x, self.kernel, groups=3)), self.mix, self.shift)


def test_weights_of_other_names_are_written_back() -> None:
    torch.manual_seed(0)
    model = Functional().eval()
    network = prepare(model, (images(1),), [images()])
    deployed = network.convert()
    again = rebuild(network.write_back(copy.deepcopy(model)), (images(1),), deployed.plan)
    with torch.no_grad():
        assert torch.allclose(again(images(4)), deployed(images(4)), atol=1e-5)
