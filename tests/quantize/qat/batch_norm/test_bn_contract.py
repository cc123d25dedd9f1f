"""What every scheme owes: equal to the float pair where nothing is rounded, deployed as evaluated."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gracile.quantize.qat.batch_norm import SCHEMES_OF_BN, QatLayer
from tests.quantize.qat.batch_norm.pairs import (
    Case,
    built,
    cases,
    deploys,
    same_evaluation,
    same_training,
    trained,
)

STILL = ("frozen", "fold_and_drop")  # they never see a batch's statistics
schemes = pytest.mark.parametrize("scheme", SCHEMES_OF_BN.values(), ids=SCHEMES_OF_BN.keys())
moving = pytest.mark.parametrize(
    "scheme",
    [pytest.param(kind, id=name) for name, kind in SCHEMES_OF_BN.items() if name not in STILL],
)


@moving
@given(case=cases())
@settings(max_examples=25)
def test_without_rounding_it_is_the_layer_and_its_norm(scheme: type[QatLayer], case: Case) -> None:
    pair = case.pair().train()
    layer = built(scheme, pair, off=True)
    same_training(layer, pair, case.inputs(2))
    same_evaluation(layer, pair, case.inputs(1)[0])


@moving
@given(case=cases())
@settings(max_examples=15)
def test_frozen_and_without_rounding_it_is_the_layer_and_its_norm_in_evaluation_mode(
    scheme: type[QatLayer], case: Case
) -> None:
    pair = case.pair()
    pair[1].eval()
    layer = built(scheme, pair, off=True)
    layer.freeze_()
    same_training(layer, pair, case.inputs(2))


@schemes
@given(case=cases(), bits=st.integers(1, 8), per_channel=st.booleans())
@settings(max_examples=20)
def test_what_is_deployed_is_what_evaluation_computes(
    scheme: type[QatLayer], case: Case, bits: int, per_channel: bool
) -> None:
    layer = built(scheme, case.pair(), bits=bits, per_channel=per_channel)
    deploys(trained(layer, case.inputs(3)), case.inputs(1)[0])
