"""Two convolutions: folded by the statistics of the batch."""

from __future__ import annotations

import torch

from gracile.quantize.qat.batch_norm import TwoConvolutions
from tests.quantize.qat.batch_norm.pairs import (
    Case,
    built,
    rounded,
    same_statistics,
)


def test_the_weight_is_scaled_by_the_batch_and_rounded() -> None:
    case = Case(rank=0, bias=True)
    pair, x = case.pair().float(), case.inputs(1)[0].float()
    layer = built(TwoConvolutions, pair, bits=3)
    y = pair[0](x)
    slope = pair[1].weight / torch.sqrt(y.var(0, correction=0) + pair[1].eps)
    weight = rounded(slope[:, None] * pair[0].weight, 3)
    wanted = x @ weight.T + pair[1].bias + (pair[0].bias - y.mean(0)) * slope
    torch.testing.assert_close(layer(x), wanted)
    pair(x)
    same_statistics(layer, pair)  # those of the float weight


def test_frozen_batches_do_not_count() -> None:
    case = Case(rank=2)
    layer = built(TwoConvolutions, case.pair())
    layer.freeze_()
    x = case.inputs(1)[0].float()
    inside = layer.float().train()(x)
    assert torch.equal(inside, layer.eval()(x))
    layer.unfreeze_()
    assert not torch.equal(inside, layer.train()(x))
