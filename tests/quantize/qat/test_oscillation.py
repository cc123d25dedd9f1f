"""Damping and freezing of weights that oscillate."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor, nn

from gracile.errors import BadArgument, UnsupportedOperation
from gracile.quantize.qat.oscillation import Damping, Freezing, cosine, dampening_loss, quantized_weights
from gracile.quantize.qat.weights import LSQ, TWN
from gracile.tune.hooks import Hook


def layer_with(weight: list[float], bits: int = 3) -> nn.Linear:
    """A linear layer with step 1 that quantizes its weight."""
    layer = nn.Linear(len(weight), 1)
    layer.weight.data.copy_(torch.tensor([weight]))
    layer.quantizer = LSQ(bits)
    return layer


def sgd(layer: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(layer.parameters(), lr=1.0)


def test_the_loss_is_the_distance_to_the_middle_of_the_bin_and_zero_outside() -> None:
    layer = layer_with([0.4, -1.3, 2.0, 7.0])
    loss = dampening_loss(layer)
    assert float(loss.detach()) == pytest.approx(0.4**2 + 0.3**2)
    loss.backward()
    torch.testing.assert_close(layer.weight.grad, torch.tensor([[0.8, -0.6, 0.0, 0.0]]))
    assert layer.quantizer.learned_scale.grad is None


def test_the_hook_adds_the_gradient_of_the_loss() -> None:
    torch.manual_seed(0)
    layer = layer_with(torch.randn(20).mul(3).tolist())
    x = torch.randn(5, 20)

    def task() -> Tensor:
        return nn.functional.linear(x, layer.quantizer(layer.weight)).square().sum()

    (task() + 0.25 * dampening_loss(layer)).backward()
    assert layer.weight.grad is not None
    expected = layer.weight.grad.clone()
    layer.zero_grad()
    damping = Damping(steps=8, strength=0.5)
    damping.on_step_begin(layer, sgd(layer), step=4, epoch=1)  # half of the way along the cosine
    task().backward()
    torch.testing.assert_close(layer.weight.grad, expected)


def test_damping_pulls_weights_from_the_edges_of_their_bins() -> None:
    torch.manual_seed(1)
    layer = layer_with(torch.randn(200).clamp(-3, 3).tolist())
    optimizer, damping = torch.optim.SGD([layer.weight], lr=0.1), Damping(steps=1, strength=1.0)
    before = layer.quantizer.integers(layer.weight)
    for step in range(1, 40):
        damping.on_step_begin(layer, optimizer, step=step, epoch=1)
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(layer.quantizer.integers(layer.weight), before)
    assert float((layer.weight.detach() - before).abs().max()) < 1e-3


def jump(freezing: Freezing, layer: nn.Linear, positions: list[float], first_step: int = 0) -> None:
    """Put the first weight at each position in turn, as an optimizer would."""
    for step, position in enumerate(positions, first_step):
        freezing.on_step_begin(layer, sgd(layer), step=step, epoch=1)
        layer.weight.data[0, 0] = position
        freezing.on_step_end(layer, sgd(layer), step=step, epoch=1)


def test_a_weight_that_oscillates_is_frozen_where_it_was_most_of_the_time() -> None:
    layer = layer_with([1.0, 1.0])
    freezing = Freezing(steps=1000, first=0.05, last=0.05, momentum=0.02)
    jump(freezing, layer, [1.4, 1.4, 1.4, 1.6] * 10)
    assert freezing.share == 0.5
    assert float(layer.weight[0, 0].detach()) == 1.0
    layer.quantizer.learned_scale.data.fill_(0.5)  # the step goes on learning
    jump(freezing, layer, [9.0], first_step=40)
    assert float(layer.weight[0, 0].detach()) == 0.5


def test_frequency_is_the_moving_average_of_turns() -> None:
    layer = layer_with([0.0, 0.0])
    freezing = Freezing(steps=10, first=1.0, last=1.0, momentum=0.1)
    positions = [1.0, 2.0, 1.0, 1.0, 2.0, 3.0, 0.0]  # turns at the third, fifth and seventh step
    jump(freezing, layer, positions)
    frequency = 0.0
    for turn in (0, 0, 1, 0, 1, 0, 1):
        frequency = 0.1 * turn + 0.9 * frequency
    track = freezing._tracks[""]
    assert float(track.frequency[0, 0]) == pytest.approx(frequency)
    assert float(track.frequency[0, 1]) == 0
    assert freezing.share == 0


def test_a_weight_that_moves_on_is_never_frozen() -> None:
    layer = layer_with([-3.0, 0.0])
    freezing = Freezing(steps=1, first=0.001, last=0.001, momentum=0.5)
    jump(freezing, layer, [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0])
    assert freezing.share == 0


def test_a_layer_whose_bits_change_begins_anew() -> None:
    """Integers of the old grid would be steps of the new one."""
    layer = layer_with([3.0, 0.0])
    freezing = Freezing(steps=1, first=0.3, last=0.3, momentum=0.5)
    jump(freezing, layer, [3.0, 2.0, 3.0])
    assert freezing.share == 0.5
    layer.quantizer.change_bits_(2, layer.weight)
    before = layer.weight.detach().clone()
    freezing.on_step_end(layer, sgd(layer), step=1, epoch=1)
    assert freezing.share == 0
    assert torch.equal(layer.weight, before)


def test_freezing_settles_the_toy_problem_of_the_paper() -> None:
    """A weight whose best value lies between two integers swings for ever, unless it is frozen."""

    def train(hook: Hook | None) -> list[int]:
        layer = layer_with([0.9, 0.0], bits=4)
        optimizer = torch.optim.SGD([layer.weight], lr=0.1)
        seen = []
        for step in range(300):
            if hook:
                hook.on_step_begin(layer, optimizer, step=step, epoch=1)
            loss = (layer.quantizer(layer.weight)[0, 0] - 1.3).square()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if hook:
                hook.on_step_end(layer, optimizer, step=step, epoch=1)
            seen.append(int(layer.quantizer.integers(layer.weight)[0, 0]))
        return seen[-100:]

    assert set(train(None)) == {1, 2}
    assert set(train(Freezing(steps=300, first=0.05, last=0.05, momentum=0.02))) == {1}


def test_what_has_no_bins_of_that_kind_is_left_out() -> None:
    layer = layer_with([0.4])
    model = nn.Sequential(layer, nn.Linear(1, 1), layer_with([0.4]), layer_with([0.4]), layer_with([0.4]))
    model[2].quantizer = TWN(2)
    model[3].quantizer.enabled = False
    model[4].slope_goes = "inside"
    assert [name for name, *_ in quantized_weights(model)] == ["0"]
    for act in (Damping(steps=1), Freezing(steps=1)):
        with pytest.raises(UnsupportedOperation, match="lsq or minmax"):
            act.on_step_begin(nn.Linear(1, 1), sgd(layer), step=0, epoch=1)


@pytest.mark.parametrize("moment", ["on_step_begin", "on_step_end", "on_epoch_end"])
@pytest.mark.parametrize("kind", [Damping, Freezing])
def test_both_have_the_methods_of_a_hook(kind: type, moment: str) -> None:
    assert inspect.signature(getattr(kind, moment)) == inspect.signature(getattr(Hook, moment))


def test_numbers_outside_their_ranges_are_refused() -> None:
    for wrong in ({"steps": 0}, {"steps": 1, "strength": -1.0}):
        with pytest.raises(BadArgument):
            Damping(**wrong)
    for wrong in ({"steps": 0}, {"steps": 1, "first": 0.0}, {"steps": 1, "momentum": 2.0}):
        with pytest.raises(BadArgument):
            Freezing(**wrong)


def test_the_cosine_ends_where_it_says() -> None:
    assert cosine(0, 7, 0.2, 0.01) == pytest.approx(0.2)
    assert cosine(7, 7, 0.2, 0.01) == pytest.approx(0.01)
    assert cosine(70, 7, 0.2, 0.01) == pytest.approx(0.01)
