"""Weights files that fit, and all the ways in which they do not."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gracile.errors import NonFiniteError, WeightsError
from gracile.zoo import demo_net, load_model, load_weights, read_weights


@pytest.fixture
def model() -> nn.Module:
    return demo_net(width=4)


def assert_same(a: nn.Module, b: nn.Module) -> None:
    assert a.state_dict().keys() == b.state_dict().keys()
    assert all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_torch_checkpoints(model: nn.Module, tmp_path: Path, wrap: str | None, prefix: str) -> None:
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / "w.pt")
    other = demo_net(width=4)
    load_weights(other, tmp_path / "w.pt")
    assert_same(model, other)


def test_safetensors_without_batch_counters(model: nn.Module, tmp_path: Path) -> None:
    state = {n: t for n, t in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "w.safetensors")
    assert_same(
        model, load_model("gracile:demo_net", weights=tmp_path / "w.safetensors", options={"width": 4})
    )


def test_a_pickled_module_is_refused(model: nn.Module, tmp_path: Path) -> None:
    torch.save(model, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"found pickled Python objects.*save_file\(model\.state_dict\(\)"):
        read_weights(tmp_path / "w.pt")


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (tmp_path / "sprung",)

    (tmp_path / "w.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(WeightsError, match="wanted a checkpoint that holds tensors only"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "sprung").exists()


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"w\.pt: wanted a weights file, found no such file"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_truncated_file(model: nn.Module, tmp_path: Path, suffix: str, share: float) -> None:
    file = tmp_path / f"w{suffix}"
    if suffix == ".pt":
        torch.save(model.state_dict(), file)
    else:
        save_file(model.state_dict(), file)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(WeightsError, match=r"wanted a (whole|checkpoint)"):
        read_weights(file)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_checkpoint_is_named_wherever_the_damage_lies(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    torch.save(nn.Linear(2, 1).state_dict(), file, _use_new_zipfile_serialization=False)
    whole = file.read_bytes()
    refused = 0
    for at in range(0, len(whole), 5):
        for broken in (whole[:at], whole[:at] + b"r" + whole[at + 1 :]):
            file.write_bytes(broken)
            try:
                read_weights(file)
            except WeightsError:
                refused += 1
    assert refused > len(whole) // 5


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([torch.ones(1)], "found a list"),
        ({"a": torch.ones(1), "lr": 0.1}, "found 1 not tensors: lr"),
        ({}, "found an empty file"),
    ],
)
def test_checkpoints_of_something_else(tmp_path: Path, content: object, found: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=found):
        read_weights(tmp_path / "w.pt")


def test_what_does_not_fit_is_counted_and_named(model: nn.Module, tmp_path: Path) -> None:
    state = model.state_dict()
    for name in [n for n in state if n.startswith("block1.bn1") and "num" not in n] + ["stem.weight"]:
        del state[name]
    state["extra.weight"] = torch.ones(1)
    state["linear.bias"] = torch.ones(7)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError) as caught:
        load_weights(model, tmp_path / "w.pt")
    assert "5 missing: stem.weight, block1.bn1.weight, block1.bn1.bias, " in caught.value.found
    assert caught.value.found.count(", ...") == 1
    assert "1 unexpected: extra.weight" in caught.value.found
    assert "1 of another shape: linear.bias (7,) instead of (10,)" in caught.value.found
    assert caught.value.exit_code == 2


def test_weights_of_another_depth(tmp_path: Path) -> None:
    save_file(load_model("gracile:resnet20").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"180 missing: layer1\.3\.conv1\.weight, layer1\.3\.bn1\.weight"):
        load_model("gracile:resnet56", weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_weights_are_named(model: nn.Module, tmp_path: Path, bad: float) -> None:
    state = model.state_dict()
    state["block2.conv1.weight"][0, 0, 0, 0] = bad
    torch.save(state, tmp_path / "w.pt")
    untouched = demo_net(width=4)
    before = {n: t.clone() for n, t in untouched.state_dict().items()}
    with pytest.raises(NonFiniteError, match=r"found 1 with NaN or infinity: block2\.conv1\.weight"):
        load_weights(untouched, tmp_path / "w.pt")
    assert all(torch.equal(t, before[n]) for n, t in untouched.state_dict().items())
