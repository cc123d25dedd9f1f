"""The qat step trains, leaves the user's own class with the deployed weights, and can be taken up again."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from gracile import prune, quantize
from gracile.data import DataBundle, load_data
from gracile.errors import BadArgument, RecipeError
from gracile.pipeline import parse_recipe
from gracile.pipeline.state import Bench, State
from gracile.pipeline.steps.qat import QatStep


@pytest.fixture(scope="module")
def digits() -> DataBundle:
    return load_data("digits", None)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 10),
    ).eval()


def step(**fields: Any) -> QatStep:
    few: dict[str, Any] = {"epochs": 2, "lr": 0.1, "batch_size": 32, "train_images": 512, "bf16": False,
                           "weight_bits": 2, "calibration": 64}  # fmt: skip
    made = QatStep.model_validate({**few, **fields})
    made.check()
    return made


def test_it_trains_and_leaves_integers(net: nn.Module, bench: Bench) -> None:
    kind, names = type(net), set(net.state_dict())
    fresh = copy.deepcopy(net)
    outcome = step(activations_from=2, freeze_norms=1).run(State(model=net), bench)
    state = outcome.state
    assert type(state.model) is kind
    assert set(state.model.state_dict()) == names
    assert state.quant is not None
    assert {w.layer: w.bits for w in state.quant.weights} == {"0": 8, "3": 2, "7": 8}
    assert "3 layers at W2A8" in outcome.summary
    epochs = outcome.detail["epochs"]
    assert epochs[-1]["train_accuracy"] > epochs[0]["train_accuracy"]
    assert 0 < outcome.detail["zeros"]["3"] < 1
    fresh.load_state_dict(state.model.state_dict())  # as a checkpoint does
    again = quantize.rebuild(fresh, bench.inputs, state.quant)
    with torch.no_grad():
        assert torch.allclose(again(bench.images), state.current(bench.images), atol=1e-3)


def test_masks_hold_while_bits_are_trained(net: nn.Module, bench: Bench) -> None:
    masks = prune.mask_plan(net, bench.inputs, sparsity=0.7, scope="global", leave=())
    sparse = prune.apply_masks(net, masks)
    outcome = step(weight_bits=4).run(State(model=sparse, masks=masks), bench)
    held = dict(outcome.state.model.named_parameters())
    for mask in masks.masks:
        assert not held[mask.param].detach().numpy()[~mask.keep].any()


def test_fields_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadArgument, match="progressive"):
        step(progressive={1: 4})
    with pytest.raises(BadArgument, match="activations_from"):
        step(activations_from=5)
    with pytest.raises(BadArgument, match="less_is_more"):
        step(less_is_more={})


def test_nothing_but_export_and_pack_may_follow() -> None:
    text = "name: q\nmodel: {spec: 'gracile:demo_net'}\ndata: {spec: digits}\n"
    text += "steps:\n- step: qat\n- step: tune\n"
    with pytest.raises(RecipeError, match="`tune` before `qat`"):
        parse_recipe(text)
