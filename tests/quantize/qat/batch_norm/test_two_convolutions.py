"""Two convolutions: folded by the statistics of the batch."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gracile.quantize.qat.batch_norm import TwoConvolutions
from tests.quantize.qat.batch_norm.pairs import (
    Case,
    built,
    cases,
    deploys,
    rounded,
    same_evaluation,
    same_statistics,
    same_training,
    trained,
)


@given(cases())
@settings(max_examples=25, deadline=None)
def test_without_rounding_it_is_the_layer_and_its_norm(case: Case) -> None:
    pair = case.pair().train()
    layer = built(TwoConvolutions, pair, off=True)
    same_training(layer, pair, case.inputs(2))
    same_evaluation(layer, pair, case.inputs(1)[0])


@given(cases())
@settings(max_examples=15, deadline=None)
def test_frozen_and_without_rounding_it_is_the_layer_and_its_norm_in_evaluation_mode(case: Case) -> None:
    pair = case.pair()
    pair[1].eval()
    layer = built(TwoConvolutions, pair, off=True)
    layer.freeze_()
    same_training(layer, pair, case.inputs(2))


@given(cases(), st.integers(1, 8), st.booleans())
@settings(max_examples=20, deadline=None)
def test_what_is_deployed_is_what_evaluation_computes(case: Case, bits: int, per_channel: bool) -> None:
    layer = built(TwoConvolutions, case.pair(), bits=bits, per_channel=per_channel)
    deploys(trained(layer, case.inputs(3)), case.inputs(1)[0])


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
