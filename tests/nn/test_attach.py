"""Parts hang on the user's own modules, which keep class and names."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from gracile.errors import BadArgument
from gracile.nn import GatherChannels, MaskChannels, ScatterChannels, attach_, detach_, hand_over_, parts_of


def hung() -> nn.Conv2d:
    layer = nn.Conv2d(2, 2, 1)
    attach_(layer, "gather", GatherChannels(torch.tensor([3, 0]), 4))
    attach_(layer, "scatter", ScatterChannels(torch.tensor([2, 1]), 3))
    attach_(layer, "mask", MaskChannels(torch.tensor([1.0, 0.0])))
    return layer


def test_parts_run_in_order_whatever_the_order_of_hanging() -> None:
    layer, x = hung(), torch.randn(2, 4, 3, 3)
    inner = nn.functional.conv2d(x[:, [3, 0]], layer.weight, layer.bias)
    wanted = torch.zeros(2, 3, 3, 3)
    wanted[:, 2] = inner[:, 0]
    torch.testing.assert_close(layer(x), wanted)
    assert type(layer) is nn.Conv2d
    assert {"weight", "bias"} < set(layer.state_dict())


def test_copies_pickles_and_states_follow() -> None:
    layer, x = hung(), torch.randn(2, 4, 3, 3)
    twin = copy.deepcopy(layer)
    twin.weight.data.mul_(2)
    twin.bias.data.mul_(2)
    torch.testing.assert_close(twin(x), 2 * layer(x))
    torch.testing.assert_close(pickle.loads(pickle.dumps(layer))(x), layer(x))
    other = hung()
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(x), layer(x))


def test_hanging_again_replaces_and_runs_once() -> None:
    layer = nn.Linear(2, 2)
    for value in (5.0, 3.0):
        attach_(layer, "mask", MaskChannels(torch.tensor([value, value])))
    x = torch.randn(1, 2)
    torch.testing.assert_close(layer(x), 3 * nn.functional.linear(x, layer.weight, layer.bias))
    assert len(layer._forward_hooks) == 1


def test_what_is_taken_off_does_nothing() -> None:
    layer, x = nn.Linear(2, 2), torch.randn(1, 2)
    wanted = layer(x)
    attach_(layer, "mask", MaskChannels(torch.zeros(2)))
    attach_(layer, "gather", GatherChannels(torch.tensor([1]), 2))
    detach_(layer, "mask")
    detach_(layer, "gather")
    assert parts_of(layer) == {}
    torch.testing.assert_close(layer(x), wanted)


def test_parts_are_handed_over() -> None:
    target = hand_over_(hung(), nn.Identity())
    assert target(torch.ones(1, 4, 1, 1)).flatten().tolist() == [0.0, 0.0, 1.0]
    assert "scatter.table" in target.state_dict()


@pytest.mark.parametrize("module", [nn.Sequential(nn.Linear(1, 1)), nn.MultiheadAttention(2, 1)])
def test_modules_with_children_are_refused(module) -> None:
    with pytest.raises(BadArgument, match="a module without children"):
        attach_(module, "mask", MaskChannels(torch.ones(1)))


def test_kinds_and_taken_names_are_refused() -> None:
    with pytest.raises(BadArgument, match="kind: wanted one of gather, border"):
        attach_(nn.Identity(), "relu", MaskChannels(torch.ones(1)))
    layer = nn.Identity()
    layer.mask = 3
    with pytest.raises(BadArgument, match="an attribute `mask`"):
        attach_(layer, "mask", MaskChannels(torch.ones(1)))
