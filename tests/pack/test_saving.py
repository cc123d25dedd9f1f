"""Packed models run and give bit by bit what they gave, without their class."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import gracile
from gracile import export, fold, graph, pack, prune, quantize
from gracile.errors import StorageError, UnsupportedOperation, WeightsError
from gracile.nn import QuantizedModel
from gracile.testing import net
from gracile.testing.contract import same_numbers
from gracile.testing.nets import NETS


def quantized(name: str, bits: int) -> tuple[QuantizedModel, tuple[Tensor, ...]]:
    """A tiny network with weights of a few bits."""
    model, inputs = net(name)
    folded = fold.apply(model, fold.plan(model, inputs)).eval()
    images = torch.randn(16, *inputs[0].shape[1:], generator=torch.Generator().manual_seed(1))
    scheme = quantize.Scheme(weight_bits=bits, rounding=quantize.Nearest())
    return quantize.ptq(folded, inputs, [images], scheme), inputs


@pytest.mark.parametrize("name", NETS)
def test_a_float_model_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    model, inputs = net(name)
    batch = torch.cat([inputs[0]] * 3)
    artifact = pack.save(model, tmp_path / "net.gracile", inputs)
    assert artifact.size_bytes == (tmp_path / "net.gracile").stat().st_size
    loaded = gracile.load(tmp_path / "net.gracile")
    assert torch.equal(loaded(batch), model(batch))
    assert {n for n, _ in loaded.named_parameters()} == {n for n, _ in model.named_parameters()}


@pytest.mark.parametrize(("name", "bits"), [("residual", 4), ("concat", 8), ("grouped", 3), ("depthwise", 2)])
def test_a_quantized_model_gives_the_same_bits(name: str, bits: int, tmp_path: Path) -> None:
    model, inputs = quantized(name, bits)
    batch = torch.cat([inputs[0]] * 3)
    pack.save(model, tmp_path / "net.gracile")
    loaded = pack.load(tmp_path / "net.gracile")
    assert isinstance(loaded, QuantizedModel)
    assert torch.equal(loaded(batch), model(batch))
    assert loaded.plan.edges == model.plan.edges
    assert [(w.layer, w.bits, w.scale) for w in loaded.plan.weights] == [
        (w.layer, w.bits, w.scale) for w in model.plan.weights
    ]
    with pytest.raises(AttributeError, match="float_graph"):
        assert loaded.float_graph


def test_a_loaded_model_exports_and_packs_again(tmp_path: Path) -> None:
    model, inputs = quantized("plain", 4)
    pack.save(model, tmp_path / "a.gracile")
    loaded = pack.load(tmp_path / "a.gracile")
    export.onnx(loaded, inputs, tmp_path / "model.onnx")
    assert all(row["integer"] for row in export.kernels(tmp_path / "model.onnx") if row["bits"] is not None)
    pack.save(loaded, tmp_path / "b.gracile")
    assert torch.equal(pack.load(tmp_path / "b.gracile")(*inputs), model(*inputs))


def test_a_pruned_model_runs_without_its_class(tmp_path: Path) -> None:
    model, inputs = net("residual")
    plan = prune.plan(model, inputs, budget=prune.PerLayer(ratio=0.4), leave=("last",), trunk="selective")
    small = prune.apply(model, plan, inputs=inputs).eval()
    pack.save(small, tmp_path / "net.gracile", inputs, plans={"prune": plan})
    wanted = tmp_path / "wanted.safetensors"
    safetensors.torch.save_file({"x": inputs[0], "y": small(inputs[0]).detach()}, wanted)
    code = (
        "import sys, torch, safetensors.torch, gracile\n"
        "t = safetensors.torch.load_file(sys.argv[2])\n"
        "same = torch.equal(gracile.load(sys.argv[1])(t['x']), t['y'])\n"
        "print(same, 'gracile.testing.nets' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "net.gracile"), str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
    assert pack.read_header(tmp_path / "net.gracile").plans["prune"]["params_after"] == plan.params_after


def test_weights_go_back_into_the_class(tmp_path: Path) -> None:
    model, inputs = net("plain")
    pack.save(model, tmp_path / "weights.gracile")
    pack.save(model, tmp_path / "whole.gracile", inputs)
    for name in ("weights", "whole"):
        fresh, _ = net("plain", seed=1)
        assert not same_numbers(fresh, model)
        assert pack.load(tmp_path / f"{name}.gracile", into=fresh) is fresh
        assert same_numbers(fresh, model)
    with pytest.raises(WeightsError, match="weights of a Plain alone"):
        pack.load(tmp_path / "weights.gracile")
    other, _ = net("plain")
    other.fc2 = nn.Linear(16, 11)
    with pytest.raises(WeightsError, match="of shape"):
        pack.load(tmp_path / "weights.gracile", into=other)
    with pytest.raises(WeightsError, match="found those of a Plain: no bn0"):
        pack.load(tmp_path / "weights.gracile", into=net("residual")[0])


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    deep = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 4))
    shallow = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    half = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4).half())
    for inputs in (None, (torch.zeros(2, 4),)):
        pack.save(deep, tmp_path / "deep.gracile", inputs)
        with pytest.raises(WeightsError, match=r"those of a Sequential: 3\.bias, which it has not"):
            pack.load(tmp_path / "deep.gracile", into=shallow)
    pack.save(shallow, tmp_path / "shallow.gracile")
    with pytest.raises(WeightsError, match=r"no 3\.bias"):
        pack.load(tmp_path / "shallow.gracile", into=deep)
    with pytest.raises(WeightsError, match=r"2\.weight of shape \(4, 4\) and type torch\.float32"):
        pack.load(tmp_path / "shallow.gracile", into=half)


@pytest.mark.parametrize("whole", [False, True])
def test_buffers_outside_the_state_dict_go_back_too(whole: bool, tmp_path: Path) -> None:
    packed, fresh, x, y = Several(), Several(), torch.randn(4, 2), torch.randn(4, 3)
    packed.scale.fill_(5)
    pack.save(packed, tmp_path / "several.gracile", (x, y) if whole else None)
    assert pack.load(tmp_path / "several.gracile", into=fresh) is fresh
    assert torch.equal(fresh.scale, packed.scale)


def test_both_grids_of_a_value_come_back(tmp_path: Path) -> None:
    model, inputs = net("residual")
    images = torch.randn(16, *inputs[0].shape[1:], generator=torch.Generator().manual_seed(1))
    scheme = quantize.Scheme(weight_bits=4, activation_bits=4, rounding=quantize.Nearest())
    quantized = quantize.ptq(model, inputs, [images], scheme)
    assert {edge.readers for edge in quantized.plan.edges} == {"all", "layers", "rest"}
    pack.save(quantized, tmp_path / "net.gracile")
    loaded = pack.load(tmp_path / "net.gracile")
    assert isinstance(loaded, QuantizedModel)
    assert loaded.plan.edges == quantized.plan.edges


class Named(nn.Module):
    """Layers under names of the user's own."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Linear(3, 3) for name in names})

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers.values():
            x = layer(x)
        return x


def test_names_that_are_no_words_of_python_come_back(tmp_path: Path) -> None:
    model, x = Named("branch-1", "größe", "a/b (c)", "3x3").eval(), torch.randn(2, 3)
    pack.save(model, tmp_path / "net.gracile", (x,))
    loaded = pack.load(tmp_path / "net.gracile")
    assert torch.equal(loaded(x), model(x))
    assert {n for n, _ in loaded.named_parameters()} == {n for n, _ in model.named_parameters()}


@pytest.mark.parametrize("name", ["it's", "{0}", "x" * 201])
def test_names_that_archives_may_not_hold_are_refused_before_anything_is_written(
    name: str, tmp_path: Path
) -> None:
    model, x = Named(name).eval(), torch.randn(2, 3)
    with pytest.raises(UnsupportedOperation) as caught:
        pack.save(model, tmp_path / "net.gracile", (x,))
    assert name in caught.value.where
    assert list(tmp_path.iterdir()) == []
    pack.save(model, tmp_path / "net.gracile")  # weights alone may have any name
    assert same_numbers(pack.load(tmp_path / "net.gracile", into=Named(name)), model)


def test_saving_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    from gracile.testing.contract import fingerprint

    model, inputs = net("concat")
    model.train()
    before = fingerprint(model)
    pack.save(model, tmp_path / "net.gracile", inputs)
    assert fingerprint(model) == before


class Several(nn.Module):
    """Two inputs, a mapping out, a size that is computed, a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor([2.0]), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, object]:
        flat = x.reshape(x.shape[0] * 2, -1)
        bounded = torch.clamp(x, max=float("inf")) * torch.tensor([1.0, 3.0])
        return {"flat": flat, "both": (bounded * self.scale, [y.to(torch.float64)])}


def test_several_inputs_and_outputs_keep_their_form(tmp_path: Path) -> None:
    model, x, y = Several(), torch.randn(4, 2), torch.randn(4, 3)
    pack.save(model, tmp_path / "several.gracile", (x, y))
    found, wanted = pack.load(tmp_path / "several.gracile")(x, y), model(x, y)
    assert torch.equal(found["flat"], wanted["flat"])
    assert torch.equal(found["both"][0], wanted["both"][0])
    assert torch.equal(found["both"][1][0], wanted["both"][1][0])
    assert found["both"][1][0].dtype == torch.float64


def test_what_archives_may_not_call_is_named(tmp_path: Path) -> None:
    class Random(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand_like(x)

    with pytest.raises(UnsupportedOperation, match="rand_like"):
        pack.save(Random(), tmp_path / "random.gracile", (torch.zeros(2, 3),))
    assert list(tmp_path.iterdir()) == []


def test_unpacked_files_are_the_tensors_and_the_plan(tmp_path: Path) -> None:
    model, _ = quantized("depthwise", 4)
    pack.save(model, tmp_path / "net.gracile")
    artifacts = pack.unpack(tmp_path / "net.gracile", tmp_path / "out")
    assert [a.name for a in artifacts] == ["tensors.safetensors", "plan.json"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["plan.json", "tensors.safetensors"]
    tensors = safetensors.torch.load_file(tmp_path / "out" / "tensors.safetensors")
    state = model.network.state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[n], state[n]) for n in state)
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["graph"][-1]["op"] == "output"
    assert [w["layer"] for w in plan["quantized"]["weights"]] == [w.layer for w in model.plan.weights]
    (tmp_path / "net.gracile").write_bytes(b"nothing")
    with pytest.raises(StorageError):
        pack.unpack(tmp_path / "net.gracile", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_captured_graph_packs_as_it_is(tmp_path: Path) -> None:
    model, inputs = net("sequence")
    captured = graph.capture_free_batch(model, inputs)
    pack.save(captured, tmp_path / "net.gracile")
    assert torch.equal(pack.load(tmp_path / "net.gracile")(*inputs), model(*inputs))
