"""Two removals as one plan do to the first model what they did one after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gracile import surgery
from gracile.graph import capture, cost, trace
from gracile.prune import PerLayer, plan
from gracile.prune.training.composition import Composition
from gracile.records import PrunePlan, from_plain, to_plain


def test_two_plans_as_one(net: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    both = Composition(trace(capture(net, inputs)))
    small = net
    for seed, ratio in ((0, 0.3), (1, 0.4)):
        one = plan(small, inputs, budget=PerLayer(ratio=ratio), leave=(), seed=seed)
        small = surgery.apply(small, one)
        both.add(one)
    whole = both.plan(criterion="both")
    again = surgery.apply(net, from_plain(PrunePlan, to_plain(whole)))
    images = torch.randn(3, *inputs[0].shape[1:])
    torch.testing.assert_close(again(images), small(images), rtol=0, atol=0)
    assert (whole.params_after, whole.macs_after) == (cost(small, inputs).params, cost(small, inputs).macs)
    assert whole.params_before == cost(net, inputs).params
    for group in whole.groups:
        assert 1 <= len(group.keep) < group.units


def test_nothing_removed_keeps_everything(plain: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    whole = Composition(trace(capture(plain, inputs))).plan()
    assert not whole.slices
    assert all(len(group.keep) == group.units for group in whole.groups)
    assert whole.params_before == whole.params_after
