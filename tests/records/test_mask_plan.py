"""Masks survive JSON, and what does not fit is refused on loading."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from gracile.errors import BadArgument
from gracile.records import MaskPlan, ParamMask, Skipped, from_json, to_json


@given(arrays(bool, array_shapes(min_dims=1, max_dims=5, max_side=5)))
def test_a_mask_comes_back_from_its_bits(keep: NDArray[np.bool_]) -> None:
    mask = ParamMask.of("w", keep, "element")
    assert np.array_equal(mask.keep, keep)
    assert (mask.kept, mask.of_all) == (int(keep.sum()), keep.size)
    assert mask.sparsity == pytest.approx(1 - keep.mean())
    again = from_json(ParamMask, to_json(mask))
    assert again == mask
    assert np.array_equal(again.keep, keep)


@given(st.integers(1, 40), st.integers(0, 8))
def test_bits_of_another_length_are_refused(size: int, count: int) -> None:
    bits = base64.b64encode(bytes(count)).decode()
    if count == -(-size // 8):
        assert ParamMask(param="w", shape=(size,), bits=bits).kept == 0
    else:
        with pytest.raises(BadArgument, match=f"{size} bits"):
            ParamMask(param="w", shape=(size,), bits=bits)


@pytest.mark.parametrize(
    ("shape", "bits", "found"),
    [
        ((3,), "4?==", "not base64"),
        ((3,), "/w==", "behind the last weight"),
        ((), "", "()"),
        ((3, 0), "", "(3, 0)"),
    ],
)
def test_damaged_masks_are_refused(shape: tuple[int, ...], bits: str, found: str) -> None:
    with pytest.raises(BadArgument) as caught:
        ParamMask(param="w", shape=shape, bits=bits)
    assert caught.value.where == "w"
    assert found in caught.value.found


def test_a_plan_is_checked_when_it_is_read() -> None:
    mask = ParamMask.of("w", np.eye(3, dtype=bool), "element")
    plan = MaskPlan(masks=(mask,), skipped=(Skipped("head", "last"),), criterion="c", sparsity=0.5)
    assert from_json(MaskPlan, to_json(plan)) == plan
    text = json.loads(to_json(plan))
    text["masks"][0]["shape"] = [5, 4]
    with pytest.raises(ValueError, match="20 bits"):
        from_json(MaskPlan, json.dumps(text))
    with pytest.raises(BadArgument, match="several for w"):
        MaskPlan(masks=(mask, mask))


def test_a_plan_adds_up_and_prints_its_table() -> None:
    masks = (
        ParamMask.of("body.weight", np.arange(8).reshape(2, 4) < 2, "block 1x2"),
        ParamMask.of("head.weight", np.ones((3, 4), dtype=bool), "element"),
    )
    plan = MaskPlan(masks=masks, skipped=(Skipped("stem", "left alone: first"),), sparsity=0.3)
    assert (plan.kept, plan.of_all) == (14, 20)
    assert plan.found_sparsity == pytest.approx(0.3)
    assert plan.by_layer == {"body.weight": 0.75, "head.weight": 0.0}
    lines = str(plan).splitlines()
    assert "14 of 20 weights stay, 30.0 % are zero" in lines[0]
    assert lines[2].split() == ["body.weight", "block", "1x2", "2", "8", "75.0", "%"]
    assert lines[-1] == "  left alone stem: left alone: first"
    assert MaskPlan(masks=()).found_sparsity == 0


def test_masks_of_some_parameters() -> None:
    masks = tuple(ParamMask.of(name, np.eye(2, dtype=bool), "element") for name in ("a", "b", "c"))
    plan = MaskPlan(masks=masks, criterion="l1", sparsity=0.5)
    assert plan.only({"a", "c", "x"}) == MaskPlan(masks=(masks[0], masks[2]), criterion="l1", sparsity=0.5)
