"""Switches of a training: when activations round, norms hold still and bits fall."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracile.errors import BadArgument, StorageError
from gracile.quantize import Bits
from gracile.quantize.qat import Phases, Plan, QatModel, QatScheme, prepare
from gracile.tune import StatefulHook, TuneConfig, fit


def images(count: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def model() -> QatModel:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 4),
    )
    return prepare(net.eval(), (images(1),), [images()], QatScheme(weight_bits=2, ends=Bits(weights=8)))


def moments(model: QatModel) -> dict[str, Any]:
    norm = model.layers["0"].norm
    assert norm is not None
    assert norm.running_mean is not None
    return {
        "activations": all(part.enabled for part in model.activations.values()),
        "bits": [layer.quantizer.bits for layer in model.layers.values()],
        "mean": norm.running_mean.clone(),
    }


class Watch:
    """Notes how each epoch left the model, after the phases' hook."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_step_begin(self, model: nn.Module, optimizer: Any, *, step: int, epoch: int) -> None: ...

    def on_step_end(self, model: nn.Module, optimizer: Any, *, step: int, epoch: int) -> None: ...

    def on_epoch_end(self, model: nn.Module, optimizer: Any, *, step: int, epoch: int) -> None:
        assert isinstance(model, QatModel)
        self.seen.append(moments(model))


@pytest.fixture
def data() -> torch.utils.data.TensorDataset:
    x = images(64, 3)
    return torch.utils.data.TensorDataset(x, (x.mean((1, 2, 3)) > 0).long())


PLAN = Plan(epochs=4, activations_from=2, freeze_norms=1, weight_bits={1: 4, 3: 2})


def test_every_moment(model: QatModel, data: Any) -> None:
    phases, watch = Phases(PLAN), Watch()
    assert isinstance(phases, StatefulHook)
    config = TuneConfig(epochs=4, lr=0.01, batch_size=16, bf16=False, holdout=0.25)
    history = fit(model, data, config, hooks=[phases, watch])
    assert [seen["activations"] for seen in watch.seen] == [False, True, True, True]
    assert [seen["bits"][1] for seen in watch.seen] == [4, 4, 2, 2]
    assert {seen["bits"][0] for seen in watch.seen} == {8}
    assert not torch.equal(watch.seen[1]["mean"], watch.seen[2]["mean"])
    assert torch.equal(watch.seen[2]["mean"], watch.seen[3]["mean"])
    assert history.best_epoch >= 3  # epochs of another network are never the best


def test_compiled_steps_follow_the_phases(model: QatModel, data: Any) -> None:
    """What is switched between epochs is compiled anew, so both trainings are one."""
    torch._dynamo.reset()
    plain = copy.deepcopy(model)
    config = TuneConfig(epochs=4, lr=0.01, batch_size=16, bf16=False, holdout=0.25)
    watches = Watch(), Watch()
    fit(plain, data, config, hooks=[Phases(PLAN), watches[0]])
    fit(model, data, replace(config, compile="aot_eager"), hooks=[Phases(PLAN), watches[1]])
    for own, other in zip(watches[0].seen, watches[1].seen, strict=True):
        assert (own["activations"], own["bits"]) == (other["activations"], other["bits"])
        torch.testing.assert_close(own["mean"], other["mean"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(plain.eval()(images()), model.eval()(images()), rtol=0.05, atol=0.05)


def test_it_goes_on_after_an_interrupt(model: QatModel, data: Any, tmp_path: Any) -> None:
    config = TuneConfig(epochs=4, lr=0.01, batch_size=16, bf16=False, holdout=0.25)
    whole, broken = copy.deepcopy(model), copy.deepcopy(model)
    fit(whole, data, config, hooks=[Phases(PLAN)])

    class Stop(Exception):
        pass

    def stop(record: Any) -> None:
        if record.epoch == 3:
            raise Stop

    file = tmp_path / "run.safetensors"
    with pytest.raises(Stop):
        fit(broken, data, config, hooks=[Phases(PLAN)], checkpoint=file, on_epoch=stop)
    again = copy.deepcopy(model)
    fit(again, data, config, hooks=[Phases(PLAN)], checkpoint=file)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_checkpoint_of_another_plan_is_refused(model: QatModel, data: Any, tmp_path: Any) -> None:
    config, file = TuneConfig(epochs=1, batch_size=32, bf16=False), tmp_path / "run.safetensors"
    fit(copy.deepcopy(model), data, config, hooks=[Phases(Plan(epochs=1))], checkpoint=file)
    with pytest.raises(StorageError, match=r"Phases\.plan \('Plan\(epochs=1, activations_from=1"):
        fit(model, data, config, hooks=[Phases(Plan(epochs=1, freeze_norms=1))], checkpoint=file)


def test_bits_that_pass_through_eight_go_on_falling(model: QatModel) -> None:
    plan = Plan(epochs=3, weight_bits={1: 8, 2: 4, 3: 2})
    phases, optimizer = Phases(plan), torch.optim.SGD(model.parameters(), lr=0.01)
    phases.on_begin(model, optimizer)
    seen = []
    for epoch in (1, 2, 3):
        phases.on_step_begin(model, optimizer, step=epoch, epoch=epoch)
        seen.append(moments(model)["bits"])
        phases.on_epoch_end(model, optimizer, step=epoch, epoch=epoch)
    assert [bits[1] for bits in seen] == [8, 4, 2]
    assert {bits[0] for bits in seen} == {8}  # an end, which is no concern of the plan


def test_the_same_model_goes_on_after_an_interrupt_at_eight_bits(model: QatModel) -> None:
    plan = Plan(epochs=2, weight_bits={1: 8, 2: 2})
    first, second = Phases(plan), Phases(plan)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    first.on_begin(model, optimizer)
    first.on_epoch_end(model, optimizer, step=1, epoch=1)
    second.on_begin(model, optimizer)
    second.resume(json.loads(json.dumps(first.memory())))
    second.on_step_begin(model, optimizer, step=2, epoch=2)
    assert moments(model)["bits"][1] == 2


def test_an_average_is_switched_too(model: QatModel, data: Any) -> None:
    config = TuneConfig(epochs=4, lr=0.01, batch_size=16, bf16=False, ema_decay=0.5)
    fit(model, data, config, hooks=[Phases(PLAN)])
    assert moments(model)["bits"][1] == 2


def test_a_loop_of_your_own(model: QatModel) -> None:
    phases, optimizer = (
        Phases(Plan(epochs=2, activations_from=2)),
        torch.optim.SGD(model.parameters(), lr=0.01),
    )
    model.train()
    phases.on_begin(model, optimizer)
    seen, step = [], 0
    for epoch in (1, 2):
        for _ in range(2):
            phases.on_step_begin(model, optimizer, step=step, epoch=epoch)
            F.cross_entropy(model(images()), torch.arange(32) % 4).backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
        seen.append(moments(model)["activations"])
        phases.on_epoch_end(model, optimizer, step=step, epoch=epoch)
    assert seen == [False, True]
    assert phases.settled


def test_plans_that_do_not_fit_are_refused() -> None:
    for wrong in (
        {"activations_from": 3},
        {"freeze_norms": 3},
        {"weight_bits": {3: 4}},
        {"weight_bits": {1: 9}},
    ):
        with pytest.raises(BadArgument, match=next(iter(wrong))):
            Plan(epochs=2, **wrong)  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="prepare"):
        Phases(Plan(epochs=1)).on_begin(nn.Linear(1, 1), None)  # type: ignore[arg-type]
