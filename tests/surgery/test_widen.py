"""Wider networks that compute the same."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracile import prune
from gracile.errors import BadArgument
from gracile.records import PrunePlan, from_json, to_json
from gracile.surgery import apply, widen
from gracile.surgery.verify import liven_
from gracile.testing.nets import IMAGE, NETS, net
from gracile.zoo.cifar_resnet import CifarResNet


def error(model: nn.Module, wide: nn.Module, x: Tensor) -> float:
    """Largest difference of outputs in evaluation mode, in float64, relative to the largest output."""
    with torch.no_grad():
        wanted = copy.deepcopy(model).double().eval()(x.double())
        found = copy.deepcopy(wide).double().eval()(x.double())
    return float((found - wanted).abs().max() / wanted.abs().max())


def images(count: int = 3) -> Tensor:
    return torch.randn(count, *IMAGE[1:], generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", NETS)
def test_outputs_stay_and_every_group_doubles(name: str) -> None:
    model, inputs = net(name)
    found = widen(model, inputs)
    assert error(model, found.model, images()) < 1e-6
    assert all(len(g.keep) == 2 * g.units for g in found.plan.groups)
    assert found.plan.params_after == sum(p.numel() for p in found.model.parameters())
    assert found.plan.macs_after > 2 * found.plan.macs_before
    assert type(found.model) is type(model)
    stuck = ["conv4"] if name == "residual" else []  # its code names the zeros of its shortcut
    assert [s.where for s in found.plan.skipped if "copies" in s.why] == stuck


@pytest.mark.parametrize(
    ("name", "factor"), [("plain", 1.0), ("concat", 1.3), ("upsampling", 2.6), ("depthwise", 1.01)]
)
def test_any_factor_keeps_the_outputs(name: str, factor: float) -> None:
    model, inputs = net(name)
    found = widen(model, inputs, factor=factor, uneven=0.9)
    assert error(model, found.model, images()) < 1e-6
    assert all(len(g.keep) == round(factor * g.units) for g in found.plan.groups)


def test_two_layers_are_as_in_net2net() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    wide = widen(model, (torch.zeros(1, 2),), uneven=0.0).model
    assert torch.equal(wide[0].weight, model[0].weight.repeat_interleave(2, 0))
    assert torch.equal(wide[0].bias, model[0].bias.repeat_interleave(2))
    assert torch.equal(wide[2].weight, model[2].weight.repeat_interleave(2, 1) / 2)
    assert torch.equal(wide[2].bias, model[2].bias)


def test_merging_what_is_equal_brings_the_narrow_network_back() -> None:
    model, inputs = net("residual")
    wide = widen(model, inputs).model
    merged = prune.merge(wide, inputs, leave=(), tolerance=1e-6)
    shapes = [p.shape for p in merged.model.parameters()]
    assert shapes == [p.shape for p in model.parameters()]
    assert error(model, merged.model, images()) < 1e-5


def test_while_training_batch_norms_see_the_same() -> None:
    model, inputs = net("residual")
    wide = widen(model, inputs).model.double().train()
    narrow, x = copy.deepcopy(model).double().train(), images(4).double()
    torch.testing.assert_close(wide(x), narrow(x), rtol=1e-6, atol=1e-6)
    mean = narrow.bn1.running_mean
    torch.testing.assert_close(wide.bn1.running_mean, mean.repeat_interleave(2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("uneven", "apart"), [(0.0, False), (0.5, True)])
def test_uneven_shares_let_copies_learn_apart(uneven: float, apart: bool) -> None:
    model, inputs = net("plain")
    wide = widen(model, inputs, uneven=uneven).model
    wide(images()).square().mean().backward()
    first, second = wide.conv1.weight.grad[0::2], wide.conv1.weight.grad[1::2]
    assert torch.allclose(first, second, rtol=1e-4, atol=1e-7) is not apart


def test_grouped_and_depthwise_convolutions_get_their_groups() -> None:
    model, inputs = net("depthwise")
    assert widen(model, inputs, factor=1.5).model.depth.groups == 24
    model, inputs = net("grouped")
    wide = widen(model, inputs).model
    assert (wide.few.groups, wide.few.in_channels, wide.few.weight.shape[1]) == (2, 32, 16)
    assert wide.norm.num_groups == 8


def test_a_layer_norm_allows_whole_factors_alone() -> None:
    model, inputs = net("attention")
    found = widen(model, inputs, factor=1.5)
    assert [s.where for s in found.plan.skipped if "copies" in s.why] == ["patch"]
    assert {g.name for g in found.plan.groups} == {"qkv", "up"}
    assert found.model.heads == 6
    assert error(model, found.model, images()) < 1e-6


def test_what_counts_channels_is_left_and_said() -> None:
    class Softmax(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(F.relu(self.b(torch.softmax(self.a(x), 1))))

    model = Softmax()
    found = widen(model, (torch.zeros(1, 4),))
    assert (found.model.a.out_features, found.model.b.out_features) == (6, 10)
    assert "a" in [s.where for s in found.plan.skipped]
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert error(model, found.model, x) < 1e-6


def test_shortcuts_that_pad_with_zeros_pad_with_more() -> None:
    model = CifarResNet(8, widths=(8, 16, 32))
    liven_(model, torch.Generator().manual_seed(0))
    found = widen(model, (torch.zeros(1, 3, 8, 8),))
    widths = [found.model.get_submodule(f"layer{i}.0.conv2").out_channels for i in (1, 2, 3)]
    assert widths == [16, 32, 64]
    shortcut = found.model.layer3[0].shortcut
    assert (shortcut.before, shortcut.after, shortcut.stride) == (16, 16, 2)
    assert error(model, found.model, images()[:, :, :8, :8]) < 1e-6
    assert type(found.model)(8, widths=(16, 32, 64)).load_state_dict(found.model.state_dict())


def test_padding_written_into_the_code_stays_with_what_meets_it() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.a(x))
            return self.c(F.relu(self.b(x)) + F.pad(x, (1, 1)))

    model = Padded()
    found = widen(model, (torch.zeros(1, 4),))
    assert (found.model.a.out_features, found.model.b.out_features) == (12, 14)  # two zeros stay two
    assert [s.where for s in found.plan.skipped if "copies" in s.why] == ["b"]
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert error(model, found.model, x) < 1e-6


def test_the_plan_gives_the_shape_to_load_a_checkpoint_into() -> None:
    model, inputs = net("grouped")
    before = copy.deepcopy(model.state_dict())
    found = widen(model, inputs)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    shape = apply(model, from_json(PrunePlan, to_json(found.plan)))
    shape.load_state_dict(found.model.state_dict())
    assert error(model, shape, images()) < 1e-6


def test_a_seed_gives_the_same_again() -> None:
    model, inputs = net("plain")
    first, again, other = (widen(model, inputs, factor=1.4, seed=s) for s in (3, 3, 4))
    assert all(
        torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True)
    )
    assert first.plan != other.plan


def test_names_and_patterns_are_left_alone() -> None:
    model, inputs = net("plain")
    found = widen(model, inputs, leave=("conv*",))
    assert [g.name for g in found.plan.groups] == ["fc1"]
    assert ("conv1", "left alone: conv*") in [(s.where, s.why) for s in found.plan.skipped]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"factor": 0.5}, "a factor of at least 1"),
        ({"factor": float("nan")}, "a factor of at least 1"),
        ({"uneven": 1.0}, "0 <= uneven < 1"),
        ({"leave": ("conv9",)}, "found conv9"),
    ],
)
def test_numbers_outside_their_range_are_refused(words: dict[str, object], text: str) -> None:
    with pytest.raises(BadArgument, match=text):
        widen(*net("plain"), **words)


def test_code_that_asserts_its_width_is_left_as_it_is() -> None:
    class Strict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.a(x)
            assert hidden.shape[-1] == 8, "width"
            return self.b(hidden.relu())

    found = widen(Strict().eval(), (torch.zeros(1, 4),), factor=2)
    assert found.model.a.out_features == 8
