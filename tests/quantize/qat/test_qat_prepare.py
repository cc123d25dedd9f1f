"""Networks that quantize while they train: what is put where, and that float training is untouched."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gracile.errors import BadArgument
from gracile.observe.batchnorm import reestimate_
from gracile.quantize import Bits
from gracile.quantize.lower import lower
from gracile.quantize.qat import ACTIVATION_QUANTIZERS, SCHEMES_OF_BN, WEIGHT_QUANTIZERS, QatScheme, prepare
from gracile.quantize.qat.prepare import _Work
from gracile.records import EdgeQuant
from gracile.testing import NETS, net
from gracile.testing.contract import fingerprint

ALL = Bits()


def images(count: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).square().sum() / wanted.square().sum()) ** 0.5


@pytest.mark.parametrize("name", NETS)
def test_off_it_is_the_float_network(name: str) -> None:
    model, inputs = net(name)
    before = fingerprint(model)
    trained = prepare(model, inputs, images().split(16))
    trained.quantize_weights(False)
    trained.quantize_activations(False)
    x = images(8, 1)
    with torch.no_grad():
        assert torch.allclose(trained(x), model(x), atol=1e-5)
    assert fingerprint(model) == before


@pytest.mark.parametrize("name", NETS)
def test_eight_bits_are_close_to_float(name: str) -> None:
    model, inputs = net(name)
    trained = prepare(model, inputs, images().split(16), QatScheme(weight_bits=8))
    x = images()
    with torch.no_grad():
        assert 0 < error(trained(x), model(x)) < 0.05
    assert trained.layers


class Blocks(nn.Module):
    """A residual block with its norms, a branch that is read twice, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.norm2 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        y = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(y)) + x)
        return self.fc(x.mean((2, 3)))


def blocks(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = Blocks()
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(16, 3, 8, 8))
    return model.eval()


def test_float_training_is_the_same_training() -> None:
    """With rounding off, plain batch norms: losses, weights and statistics of the original's own training."""
    model = blocks()
    trained = prepare(model, (images(1),), [images()], QatScheme(activations="ema"))
    trained.quantize_weights(False)
    trained.quantize_activations(False)
    losses = []
    for network in (model, trained):
        network.train()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
        for step in range(6):
            x = images(16, step)
            loss = F.cross_entropy(network(x), torch.arange(16) % 4)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
        network.eval()
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    with torch.no_grad():
        assert torch.allclose(model(images(8, 9)), trained(images(8, 9)), atol=1e-4)


@pytest.mark.parametrize("momentum", [None, 0.0, 0.3])
def test_statistics_go_on_where_those_of_the_original_stopped(momentum: float | None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=momentum)).train()
    for step in range(3):
        model(images(8, step))
    trained = prepare(model.eval(), (images(1),), [images()])
    trained.quantize_weights(False)
    trained.quantize_activations(False)
    for network in (model, trained):
        network.train()(images(8, 3))
    norm = trained.layers["0"].norm
    assert norm is not None
    for name, tensor in model[1].named_buffers():
        torch.testing.assert_close(norm.get_buffer(name), tensor)


def test_quantizers_lie_where_the_model_does() -> None:
    network = lower(blocks(), (images(1),)).to("meta")
    work = _Work(
        network=network, normalised=set(), bits={}, reduced=frozenset(), scheme=QatScheme(), momenta={}
    )
    edge = EdgeQuant(node="relu", bits=4, qmin=0, qmax=15, scale=0.1, zero_point=0)
    assert {tensor.device.type for tensor in work._activation(edge).state_dict().values()} == {"meta"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_of_other_precision_trains_in_float32(dtype: torch.dtype) -> None:
    model, x = blocks().to(dtype), images().to(dtype)
    trained = prepare(model, (x[:1],), [x], QatScheme(weight_bits=8)).train()
    trained(x).square().mean().backward()
    assert {p.dtype for p in trained.parameters()} == {torch.float32}
    with torch.no_grad():
        wanted = model.float()(images())
        assert error(trained.eval()(x), wanted) < 0.1
        assert error(trained.convert()(x), wanted) < 0.1


def test_what_was_prepared_without_gradients_trains() -> None:
    with torch.inference_mode():
        trained = prepare(blocks(), (images(1),), [images()])
    trained.train()(images()).square().mean().backward()
    assert all(p.grad is not None for p in trained.parameters())


def test_calibration_comes_as_one_tensor_or_from_a_loader() -> None:
    loader = DataLoader(TensorDataset(images()), batch_size=16)
    first = prepare(blocks(), (images(1),), images().split(16))
    for given in (images(), loader):
        twin = prepare(blocks(), (images(1),), given)
        for name, part in first.activations.items():
            assert twin.activations[name].grid() == pytest.approx(part.grid(), rel=1e-3), name
    with pytest.raises(BadArgument, match="Leave labels out"):
        prepare(blocks(), (images(1),), DataLoader(TensorDataset(images(), torch.zeros(32)), batch_size=16))


def test_plain_norms_are_estimated_anew() -> None:
    """Behind their rounded weights, as in training with one large batch; other schemes round by them."""
    trained = prepare(blocks(), (images(1),), [images()], QatScheme(activations="ema"))
    wanted = copy.deepcopy(trained).train()
    for layer in wanted.layers.values():
        if layer.norm is not None:
            layer.norm.momentum = 1.0
    for part in wanted.activations.values():
        part.observing = False
    wanted(images())
    names = reestimate_(trained, [images()])
    assert names == tuple(f"network.{trained.keys[name]}.norm" for name in ("stem", "conv1", "conv2"))
    for name, layer in wanted.layers.items():
        found = trained.layers[name].norm
        if found is not None and layer.norm is not None:
            torch.testing.assert_close(found.running_mean, layer.norm.running_mean)
            torch.testing.assert_close(found.running_var, layer.norm.running_var)


def test_bits_of_the_ends_and_by_name() -> None:
    scheme = QatScheme(weight_bits=2, activation_bits=4, layers={"conv1": Bits(weights=3, activations=5)})
    trained = prepare(blocks(), (images(1),), [images()], scheme)
    bits = {name: layer.quantizer.bits for name, layer in trained.layers.items()}
    assert bits == {"stem": 8, "conv1": 3, "conv2": 2, "fc": 8}
    coarse = {name: part.bits for name, part in trained.activations.items()}
    assert coarse["relu:layers"] == 5  # what the block reads; the sum reads 8 bits
    assert coarse["relu"] == 8


@pytest.mark.parametrize("weights", WEIGHT_QUANTIZERS)
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_every_technique_of_weights_learns(weights: str, bits: int) -> None:
    scheme = QatScheme(weight_bits=bits, weights=weights, ends=ALL)
    assert learns(scheme) < 0.85


@pytest.mark.parametrize("activations", ACTIVATION_QUANTIZERS)
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_every_technique_of_activations_learns(activations: str, bits: int) -> None:
    assert learns(QatScheme(weight_bits=4, activation_bits=bits, activations=activations)) < 0.85


@pytest.mark.parametrize("batch_norm", SCHEMES_OF_BN)
def test_every_place_of_batch_norm_learns(batch_norm: str) -> None:
    assert learns(QatScheme(weight_bits=4, activation_bits=4, batch_norm=batch_norm)) < 0.95


def learns(scheme: QatScheme) -> float:
    """How far the loss falls in 25 steps on one batch; 1 is where it began."""
    trained = prepare(blocks(), (images(1),), [images()], scheme).train()
    x, labels = images(32, 5), torch.arange(32) % 4
    optimizer = torch.optim.Adam(trained.parameters(), lr=0.01)
    losses = []
    for _ in range(25):
        loss = F.cross_entropy(trained(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[-1] / losses[0]


def test_bits_change_in_place() -> None:
    trained = prepare(blocks(), (images(1),), [images()], QatScheme(weight_bits=8, ends=ALL))
    parameters = {name: id(p) for name, p in trained.named_parameters()}
    x = images(8, 3)
    with torch.no_grad():
        wanted = trained(x)
        trained.set_bits("conv*", weights=2, activations=3)
        coarse = trained(x)
        trained.set_bits("conv*", weights=8, activations=8)
        again = trained(x)
    assert {name: id(p) for name, p in trained.named_parameters()} == parameters
    assert error(coarse, wanted) > 2 * error(again, wanted)
    assert {n: layer.quantizer.bits for n, layer in trained.layers.items()} == dict.fromkeys(
        trained.layers, 8
    )


def test_wrong_names_and_bits_are_refused() -> None:
    trained = prepare(blocks(), (images(1),), [images()])
    with pytest.raises(BadArgument, match="conv1"):
        trained.set_bits("nothing*", weights=4)
    with pytest.raises(BadArgument, match="for LSQ"):
        trained.set_bits("conv1", weights=9)
    with pytest.raises(BadArgument, match="at least one input"):
        prepare(blocks(), (images(1),), [])
    for wrong in ({"weights": "lsqq"}, {"batch_norm": "folded"}, {"weight_bits": 0}, {"sum_bits": 1}):
        with pytest.raises(BadArgument, match=next(iter(wrong))):
            QatScheme(**wrong)  # type: ignore[arg-type]


def test_autocast_and_state_dict() -> None:
    trained = prepare(blocks(), (images(1),), [images()], QatScheme(activation_bits=4)).train()
    with torch.autocast("cpu", torch.bfloat16):
        trained(images()).square().mean().backward()
    assert all(p.grad is not None for p in trained.parameters())
    other = prepare(blocks(1), (images(1),), [images()], QatScheme(activation_bits=4))
    other.load_state_dict(trained.state_dict())
    with torch.no_grad():
        assert torch.equal(other.eval()(images(4, 7)), trained.eval()(images(4, 7)))


@pytest.mark.parametrize("batch_norm", SCHEMES_OF_BN)
def test_compiled_it_is_the_same(batch_norm: str) -> None:
    """Traced and differentiated by the compiler, run by PyTorch: no C++ compiler is needed."""
    torch._dynamo.reset()
    trained = prepare(blocks(), (images(1),), [images()], QatScheme(batch_norm=batch_norm))
    twin = copy.deepcopy(trained)
    compiled = torch.compile(twin.train(), backend="aot_eager", fullgraph=True)
    gradients = []
    for network, holder in ((trained.train(), trained), (compiled, twin)):
        network(images()).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in holder.parameters() if p.grad is not None]))
    assert error(*gradients) < 0.05  # a weight in the middle of two steps may be rounded the other way
