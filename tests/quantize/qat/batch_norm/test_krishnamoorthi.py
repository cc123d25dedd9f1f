"""Krishnamoorthi: scaled by running statistics, corrected to the batch, then frozen."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from gracile.quantize.qat.batch_norm import Krishnamoorthi
from tests.quantize.qat.batch_norm.pairs import (
    Case,
    built,
    rounded,
    same_statistics,
)


def test_the_weight_is_scaled_by_running_statistics_and_outputs_by_the_batch() -> None:
    case = Case(rank=0, bias=True)
    pair, x = case.pair().float(), case.inputs(1)[0].float()
    layer = built(Krishnamoorthi, pair, bits=3)
    found = layer(x)
    y = pair[0](x)
    pair(x)  # moves the running statistics on
    gamma, beta, eps = pair[1].weight, pair[1].bias, pair[1].eps
    running, batch = (torch.sqrt(v + eps) for v in (pair[1].running_var, y.var(0, correction=0)))
    out = x @ rounded((gamma / running)[:, None] * pair[0].weight, 3).T
    wanted = out * running / batch + beta + (pair[0].bias - y.mean(0)) * gamma / batch
    torch.testing.assert_close(found, wanted)
    same_statistics(layer, pair)  # those of the float weight


def test_the_rounded_weight_does_not_follow_a_batch_when_momentum_is_zero() -> None:
    case = Case(rank=2, momentum=0.0)
    layer = built(Krishnamoorthi, case.pair(), bits=3).float().train()
    seen = []
    layer.quantizer.register_forward_hook(lambda module, args, weight: seen.append(weight.detach().clone()))
    for x in case.inputs(2):
        layer(x.float())
    layer.eval()(x.float())
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[1], seen[2])  # and it is the one that evaluation rounds


def test_after_freezing_there_is_one_convolution() -> None:
    case = Case(rank=2)
    layer = built(Krishnamoorthi, case.pair()).float().train()
    x = case.inputs(1)[0].float()
    counts = []
    for freeze in (False, True):
        layer.frozen = freeze
        with FlopCounterMode(display=False) as counter:
            layer(x)
        counts.append(counter.get_total_flops())
    assert counts[0] == 2 * counts[1] > 0
