"""Reductions during training: which units go and when, exact removal, optimizer state, resuming."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gracile import surgery
from gracile.errors import BadArgument, NonFiniteError
from gracile.prune import Absolute, LessIsMore, Relative
from gracile.prune.training.shrink import group_norms
from gracile.records import PrunePlan, Reduction, from_plain, to_plain
from gracile.tune import TuneConfig, fit


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, data: Tensor, steps: int = 2) -> None:
    """A few steps towards arbitrary classes, in training mode."""
    model.train()
    for _ in range(steps):
        outputs = model(data)
        nn.functional.cross_entropy(outputs, torch.arange(len(data)) % outputs.shape[1]).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def weaken(model: nn.Module, reducer: LessIsMore, share: float = 0.5) -> dict[str, int]:
    """Make the first units of every group nearly silent; how many a group."""
    weak: dict[str, int] = {}
    for group in reducer._provenance.groups:
        weak[group.name] = max(1, int(group.units * share))
        for slot in group.writers:
            with torch.no_grad():
                weight = model.get_parameter(slot.param)
                index = torch.from_numpy(slot.index[: weak[group.name]].reshape(-1))
                weight.index_copy_(slot.axis, index, weight.index_select(slot.axis, index) * 1e-4)
    return weak


def test_weak_units_go_and_all_kinds_of_networks_train_on(
    net: nn.Module, inputs: tuple[Tensor, ...], data: Tensor
) -> None:
    optimizer = sgd(net)
    reducer = LessIsMore(net, inputs, threshold=Relative(ratio=0.01), every=1)
    train(net, optimizer, data)
    weak = weaken(net, reducer)
    records = reducer.step(net, optimizer)
    assert {r.group: r.before - r.after for r in records} == weak
    assert records[-1].params == sum(p.numel() for p in net.parameters()) < reducer.params
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in net.parameters()}
    for parameter in net.parameters():
        assert optimizer.state[parameter]["momentum_buffer"].shape == parameter.shape
    before = copy.deepcopy(net.state_dict())
    train(net, optimizer, data)
    assert any(not torch.equal(before[n], t) for n, t in net.state_dict().items())


def test_removing_silent_channels_changes_no_output(plain: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Their constants go into the next biases; the shrinking of the others is the same on both sides."""
    reducer = LessIsMore(plain, inputs, threshold=Relative(ratio=0.01), every=1)
    for group in reducer._provenance.groups:
        for slot in group.writers:
            index = torch.from_numpy(slot.index[:2].reshape(-1))
            plain.get_parameter(slot.param).data.index_fill_(slot.axis, index, 0)
    wide = copy.deepcopy(plain)
    for group in reducer._provenance.groups:
        norms = group_norms(wide, group)
        for slot in group.writers:
            weight = wide.get_parameter(slot.param)
            for unit in range(group.units):
                factor = 0.0 if norms[unit] == 0 else 1 - 0.01 * float(norms.max() / norms[unit])
                index = torch.from_numpy(slot.index[unit])
                scaled = weight.data.index_select(slot.axis, index) * max(factor, 0)
                weight.data.index_copy_(slot.axis, index, scaled)
    reducer.step(plain)
    assert all(len(g.keep) == g.units - 2 for g in reducer.plan.groups)
    images = torch.randn(4, *inputs[0].shape[1:])
    torch.testing.assert_close(plain(images), wide(images), rtol=1e-4, atol=1e-5)


def test_units_that_stay_are_scaled_by_the_formula(inputs: tuple[Tensor, ...], plain: nn.Module) -> None:
    reducer = LessIsMore(plain, inputs, threshold=Absolute(tau=0.05), every=1)
    before = {g.name: group_norms(plain, g) for g in reducer._provenance.groups}
    records = reducer.step(plain)
    assert {r.threshold for r in records} == {0.05}
    for group in reducer._provenance.groups:
        kept = before[group.name][before[group.name] > 0.05]
        torch.testing.assert_close(group_norms(plain, group), kept - 0.05, rtol=1e-4, atol=1e-5)


def test_reversed_groups_by_the_readers(inputs: tuple[Tensor, ...], plain: nn.Module) -> None:
    reducer = LessIsMore(plain, inputs, threshold=Relative(ratio=0.01), every=1, reversed=True)
    images = torch.randn(4, *inputs[0].shape[1:])
    for group in reducer._provenance.groups:
        for slot in group.readers:
            index = torch.from_numpy(slot.index[:3].reshape(-1))
            plain.get_parameter(slot.param).data.index_fill_(slot.axis, index, 0)
    wide = copy.deepcopy(plain)
    records = reducer.step(plain)
    assert all(r.before - r.after == 3 for r in records)
    assert plain(images).shape == wide(images).shape


def test_layer_by_layer_takes_turns(inputs: tuple[Tensor, ...], plain: nn.Module) -> None:
    reducer = LessIsMore(plain, inputs, threshold=Relative(ratio=0.2), every=1, phase=2)
    names = [group.name for group in reducer._provenance.groups]
    turns = [[r.group for r in reducer.step(plain)] for _ in range(2 * len(names) + 1)]
    assert turns == [*([name] for name in names for _ in range(2)), []]


def test_every_start_and_stop(inputs: tuple[Tensor, ...], plain: nn.Module) -> None:
    reducer = LessIsMore(plain, inputs, every=2, start=3, stop=6)
    acted = [time for time in range(1, 11) if reducer.step(plain)]
    assert acted == [4, 6]
    assert {record.time for record in reducer.history} == {4, 6}


def test_no_group_is_emptied(net: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    reducer = LessIsMore(net, inputs, threshold=Absolute(tau=1e6), every=1)
    records = reducer.step(net, sgd(net))
    assert all(record.after == 1 for record in records)
    assert net(torch.randn(2, *inputs[0].shape[1:])).isfinite().all()
    assert reducer.step(net) == ()  # nothing is left to reduce


def test_as_a_hook_it_counts_epochs_or_steps(inputs: tuple[Tensor, ...], plain: nn.Module) -> None:
    for by_step, wanted in ((False, [2]), (True, [2, 4])):
        model = copy.deepcopy(plain)
        hook, optimizer = LessIsMore(model, inputs, every=2, by_step=by_step), sgd(model)
        for step in range(4):
            hook.on_step_begin(model, optimizer, step=step, epoch=1 + step // 2)
            hook.on_step_end(model, optimizer, step=step, epoch=1 + step // 2)
            if step % 2:
                hook.on_epoch_end(model, optimizer, step=step + 1, epoch=1 + step // 2)
        assert sorted({record.time for record in hook.history}) == wanted


def test_an_average_follows(inputs: tuple[Tensor, ...], plain: nn.Module) -> None:
    average = copy.deepcopy(plain)
    LessIsMore(plain, inputs, threshold=Absolute(tau=1e6), every=1).step(plain, None, average)
    assert [p.shape for p in average.parameters()] == [p.shape for p in plain.parameters()]


@pytest.mark.parametrize("by_step", [False, True])
def test_the_average_of_the_training_loop_follows(
    inputs: tuple[Tensor, ...], plain: nn.Module, data: Tensor, by_step: bool
) -> None:
    examples = torch.utils.data.TensorDataset(data, torch.arange(len(data)) % 3)
    hook = LessIsMore(plain, inputs, threshold=Relative(ratio=0.9), every=1, by_step=by_step)
    config = TuneConfig(epochs=2, batch_size=len(data), ema_decay=0.9, bf16=False, holdout=0.0)
    fit(plain, examples, config, hooks=[hook])
    assert hook.history[-1].params == sum(p.numel() for p in plain.parameters()) < hook.params
    assert plain(data).shape == (len(data), 3)


def test_the_same_hook_can_resume(inputs: tuple[Tensor, ...], plain: nn.Module) -> None:
    """Ctrl-C and the same call again in a notebook: nothing is counted twice."""
    whole = copy.deepcopy(plain)
    reducer = LessIsMore(plain, inputs, threshold=Relative(ratio=0.9), every=1)
    reducer.step(plain)
    state, plan = reducer.memory(), reducer.plan
    assert plan.slices
    reducer.step(plain)
    reducer.on_begin(whole, sgd(whole))
    reducer.resume(state)
    assert reducer.plan == plan
    assert [g.units for g in reducer._provenance.groups] == [len(g.keep) for g in plan.groups]


def test_named_layers_are_left_alone(inputs: tuple[Tensor, ...], plain: nn.Module) -> None:
    reducer = LessIsMore(plain, inputs, threshold=Absolute(tau=1e6), every=1, leave=("hidden",))
    reducer.step(plain)
    assert plain.get_submodule("hidden").out_features == 10
    assert "left alone: hidden" in {s.why for s in reducer.plan.skipped}


def test_the_plan_and_the_state_bring_a_fresh_model_to_the_same_shapes(
    net: nn.Module, inputs: tuple[Tensor, ...], data: Tensor
) -> None:
    fresh, other = copy.deepcopy(net), copy.deepcopy(net)
    optimizer = sgd(net)
    reducer = LessIsMore(net, inputs, threshold=Relative(ratio=0.6), every=1)
    for _ in range(2):
        train(net, optimizer, data, steps=1)
        reducer.step(net, optimizer)
    state: dict[str, Any] = json.loads(json.dumps(reducer.memory()))
    again = LessIsMore(other, inputs, threshold=Relative(ratio=0.6), every=1)
    its_optimizer = sgd(other)
    again.on_begin(other, its_optimizer)
    again.resume(state)
    other.load_state_dict(net.state_dict())
    its_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert (again.history, again.plan) == (reducer.history, reducer.plan)
    assert from_plain(PrunePlan, to_plain(reducer.plan)) == reducer.plan
    for model, its, stepper in ((net, optimizer, reducer), (other, its_optimizer, again)):
        train(model, its, data, steps=1)
        stepper.step(model, its)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    narrowed = surgery.apply(fresh, reducer.plan)
    assert [p.shape for p in narrowed.parameters()] == [p.shape for p in net.parameters()]
    assert reducer.plan.params_after == sum(p.numel() for p in net.parameters())
    assert reducer.params_after(0) == reducer.params
    assert reducer.params_after(3) == reducer.history[-1].params < reducer.params_after(2)


def test_a_record_survives_json() -> None:
    record = Reduction(time=3, group="conv1", threshold=0.5, before=8, after=5, params=100)
    assert from_plain(Reduction, json.loads(json.dumps(to_plain(record)))) == record


@pytest.mark.parametrize("name", ["every", "start", "stop", "phase"])
def test_numbers_below_one_are_refused(name: str, plain: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    wrong: dict[str, Any] = {name: 0}
    with pytest.raises(BadArgument, match=rf"{name}: wanted at least 1, found {name}=0"):
        LessIsMore(plain, inputs, **wrong)


def test_a_model_that_cannot_shrink_is_refused() -> None:
    with pytest.raises(BadArgument, match="wanted a group of channels that can shrink, found none"):
        LessIsMore(nn.Linear(3, 2), (torch.zeros(1, 3),))


def test_weights_that_are_no_numbers_are_refused(plain: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    reducer = LessIsMore(plain, inputs, every=1)
    plain.get_submodule("head").weight.data[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"head\.weight"):
        reducer.step(plain)
