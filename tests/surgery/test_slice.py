"""Slicing the user's modules, and everything that follows the parameters."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel

from gracile.errors import BadArgument
from gracile.graph import capture, trace
from gracile.records import ParamSlice, PrunePlan, from_json, to_json
from gracile.surgery import apply, apply_, edits
from gracile.testing.nets import NETS, net


def plan_for(name: str, drop: int = 2) -> tuple[nn.Module, tuple[torch.Tensor, ...], PrunePlan]:
    model, inputs = net(name)
    found = trace(capture(model, inputs))
    removed = {g.name: list(range(0, g.units, drop)) for g in found.groups}
    attributes = edits(model, found, found.gone(removed))
    return model, inputs, PrunePlan(groups=(), slices=found.slices(removed), attributes=attributes)


@pytest.mark.parametrize("name", NETS)
def test_the_argument_is_left_as_it_was_and_the_class_survives(name: str) -> None:
    model, inputs, plan = plan_for(name)
    before = copy.deepcopy(model.state_dict())
    small = apply(model, plan)
    assert type(small) is type(model)
    assert list(small.state_dict()) == list(before)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key])
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert small(*inputs).shape == model(*inputs).shape


@pytest.mark.parametrize("name", NETS)
def test_a_plan_survives_json(name: str) -> None:
    model, inputs, plan = plan_for(name)
    again = from_json(PrunePlan, to_json(plan))
    assert again == plan
    assert torch.equal(apply(model, plan)(*inputs), apply(model, again)(*inputs))


def test_attributes_of_standard_layers_follow() -> None:
    model, _, plan = plan_for("grouped")
    small = apply(model, plan)
    assert (small.norm.num_groups, small.norm.num_channels) == (2, 8)
    assert (small.few.in_channels, small.few.out_channels, small.few.groups) == (8, 8, 2)
    assert (small.many.in_channels, small.many.out_channels, small.many.groups) == (8, 8, 4)
    wide, _, cut = plan_for("attention")
    narrow = apply(wide, cut)
    assert narrow.norm1.normalized_shape == (8,)
    assert (narrow.qkv.in_features, narrow.qkv.out_features, narrow.heads) == (8, 24, 2)


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
}


def _train(model: nn.Module, optimizer: Any, scheduler: Any, ema: Any, steps: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(steps):
        x, y = torch.randn(8, 3, 8, 8, generator=draw), torch.randint(10, (8,), generator=draw)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        scheduler.step()
        ema.update_parameters(model)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_training_goes_on_as_in_a_freshly_built_narrow_model_with_the_same_state(kind: str) -> None:
    model, _, plan = plan_for("residual")
    optimizer = OPTIMIZERS[kind](model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    ema = AveragedModel(model)
    _train(model, optimizer, scheduler, ema, 3, seed=1)

    fresh = apply(copy.deepcopy(model), plan)  # built anew, with its own optimizer
    fresh_optimizer = OPTIMIZERS[kind](fresh.parameters())
    held = {id(p): n for n, p in model.named_parameters()}
    cuts: dict[str, list[ParamSlice]] = {}
    for s in plan.slices:
        cuts.setdefault(s.param, []).append(s)
    by_name = {}
    for p, state in optimizer.state.items():
        kept = {}
        for key, value in state.items():
            narrow = value.clone() if torch.is_tensor(value) else value
            if torch.is_tensor(value) and value.shape == p.shape:
                for s in cuts.get(held[id(p)], []):
                    narrow = narrow.index_select(s.axis, torch.tensor(s.keep))
            kept[key] = narrow
        by_name[held[id(p)]] = kept
    for name, p in fresh.named_parameters():
        fresh_optimizer.state[p] = by_name[name]
    for group, old in zip(fresh_optimizer.param_groups, optimizer.param_groups, strict=True):
        group["lr"] = old["lr"]
    fresh_scheduler = torch.optim.lr_scheduler.StepLR(fresh_optimizer, step_size=2, gamma=0.5)
    fresh_scheduler.load_state_dict(scheduler.state_dict())
    fresh_ema = AveragedModel(fresh)
    fresh_ema.module.load_state_dict(apply(ema.module, plan).state_dict())
    fresh_ema.n_averaged.copy_(ema.n_averaged)

    apply_(model, plan, optimizer=optimizer, ema=ema)
    _train(model, optimizer, scheduler, ema, 4, seed=2)
    _train(fresh, fresh_optimizer, fresh_scheduler, fresh_ema, 4, seed=2)
    assert optimizer.param_groups[0]["lr"] == fresh_optimizer.param_groups[0]["lr"]
    for key, value in fresh.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=0, atol=0)
    for key, value in fresh_ema.state_dict().items():
        torch.testing.assert_close(ema.state_dict()[key], value, rtol=0, atol=0)


def test_gradients_and_shared_parameters_follow() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    model(torch.ones(1, 4)).sum().backward()
    gradient = model[0].weight.grad.clone()
    keep = (1, 3)
    apply_(model, PrunePlan(groups=(), slices=(ParamSlice(param="0.weight", axis=0, size=4, keep=keep),)))
    assert model[0].weight is model[1].weight
    assert torch.equal(model[0].weight.grad, gradient[list(keep)])


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (ParamSlice(param="nowhere.weight", axis=0, size=4, keep=(0,)), "no such name"),
        (ParamSlice(param="conv1.weight", axis=0, size=9, keep=(0,)), "9 entries along axis 0"),
        (ParamSlice(param="conv1.weight", axis=0, size=8, keep=()), "at least one"),
        (ParamSlice(param="conv1.weight", axis=0, size=8, keep=(8,)), r"within 0\.\.7"),
    ],
)
def test_a_plan_for_another_model_is_refused_and_changes_nothing(piece: ParamSlice, message: str) -> None:
    model, _ = net("plain")
    before = copy.deepcopy(model.state_dict())
    good = ParamSlice(param="conv2.weight", axis=0, size=12, keep=(0, 1))
    with pytest.raises(BadArgument, match=message):
        apply_(model, PrunePlan(groups=(), slices=(good, piece)))
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())


def test_modules_that_share_a_weight_agree_on_their_width() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Conv1d(4, 4, 1), nn.Conv1d(4, 4, 1), nn.Conv1d(4, 2, 1)
            self.b.weight = self.a.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.b(self.a(x)))

    model = Tied()
    keep = (0, 2)
    slices = tuple(ParamSlice(param=p, axis=axis, size=4, keep=keep)
                   for p, axis in [("a.weight", 0), ("a.weight", 1), ("a.bias", 0), ("b.bias", 0),
                                   ("out.weight", 1)])  # fmt: skip
    small = apply(model, PrunePlan(groups=(), slices=slices))
    assert small.a.weight is small.b.weight
    assert {(m.in_channels, m.out_channels) for m in (small.a, small.b)} == {(2, 2)}
    assert small(torch.zeros(1, 2, 5)).shape == (1, 2, 5)
