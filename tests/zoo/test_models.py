"""Models by specification."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from gracile.errors import MissingExtra, ModelError
from gracile.zoo import MODELS, example_inputs, input_shape, load_model


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"resnet44", "resnet110", "wrn28_10"}))
def test_own_models_run_on_their_input_shape(name: str) -> None:
    model = load_model(f"gracile:{name}", options={"classes": 3})
    shape = input_shape(model)
    assert shape is not None
    assert input_shape(f"gracile:{name}") == shape
    assert not model.training
    assert model(*example_inputs(shape)).shape == (2, 3)


def test_options_reach_the_builder() -> None:
    assert load_model("gracile:resnet20", options={"classes": 100}).linear.out_features == 100


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "mobilenet_v3_small"])
def test_torchvision(name: str) -> None:
    pytest.importorskip("torchvision")
    model = load_model(f"torchvision:{name}", options={"num_classes": 3})
    assert not model.training
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_torchvision_backbones_are_not_downloaded() -> None:
    pytest.importorskip("torchvision")
    model = load_model("torchvision:lraspp_mobilenet_v3_large")
    assert isinstance(model, nn.Module)


def test_timm() -> None:
    pytest.importorskip("timm")
    model = load_model("timm:test_byobnet", options={"num_classes": 5})
    assert model(torch.zeros(1, 3, 160, 160)).shape == (1, 5)


def test_efficientnet_lite0_with_its_weights(data_root: Path) -> None:
    pytest.importorskip("timm")
    file = data_root / "weights" / "imagenet_tf_efficientnet_lite0.safetensors"
    model = load_model("timm:tf_efficientnet_lite0", weights=file)
    assert sum(p.numel() for p in model.parameters()) == 4_652_008


def test_user_function(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n    pass\n"
        "def build(width=2):\n    return Net(nn.Linear(width, 3))\n"
        "def number():\n    return 3\n"
    )
    assert load_model(f"{tmp_path}/mine.py:build", options={"width": 7})[0].in_features == 7
    with pytest.raises(ModelError, match=r"wanted a torch\.nn\.Module, found a int"):
        load_model(f"{tmp_path}/mine.py:number")
    with pytest.raises(ModelError, match="wanted an existing Python file"):
        load_model(f"{tmp_path}/none.py:build")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gracile:resnet65", r"found 'resnet65'\. Did you mean resnet56"),
        ("torchvision:resnet_50", r"a model of torchvision, found 'resnet_50'\. Did you mean .*resnet50"),
        ("timm:eficientnet_b0", r"a model of timm, found 'eficientnet_b0'\. Did you mean .*efficientnet_b0"),
        ("timm:hf-hub:someone/something", "a model of timm, found 'hf-hub:someone/something'"),
        ("tim:resnet18", r"wanted gracile:NAME.*Did you mean timm\?"),
        ("resnet56", r"wanted gracile:NAME.*Did you mean gracile:resnet56\?"),
        ("whatever", "wanted gracile:NAME"),
    ],
)
def test_unknown(spec: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(spec)


@pytest.mark.parametrize("option", ["pretrained", "weights"])
def test_pretrained_is_refused(option: str) -> None:
    with pytest.raises(ModelError, match=f"wanted weights from a file, found option {option}"):
        load_model("torchvision:resnet18", options={option: True})


@pytest.mark.parametrize("spec", ["gracile:lenet", "torchvision:resnet18", "timm:test_byobnet"])
def test_options_that_do_not_exist(spec: str) -> None:
    with pytest.raises(ModelError, match=r"wanted .*options.*unexpected keyword argument .?clases"):
        load_model(spec, options={"clases": 3})


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match=r"timm: .*pip install 'gracile\[vision\]'"):
        load_model("timm:resnet18")
