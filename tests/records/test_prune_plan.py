"""What a plan says about itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gracile.records import GroupPlan, PrunePlan, Skipped


@given(
    st.integers(1, 30).flatmap(lambda units: st.tuples(st.just(units), st.sets(st.integers(0, units - 1))))
)
def test_kept_and_removed_make_the_whole(case: tuple[int, set[int]]) -> None:
    units, keep = case
    removed = GroupPlan(name="g", units=units, keep=tuple(sorted(keep))).removed
    assert set(removed) | keep == set(range(units))
    assert not set(removed) & keep


def test_printing_names_groups_figures_and_what_was_left() -> None:
    plan = PrunePlan(
        groups=(GroupPlan(name="conv1", units=4, keep=(0, 2)),),
        slices=(),
        skipped=(Skipped("fc", "the output"),),
        criterion="l1",
        budget="MACs 50 %",
        macs_before=2000,
        macs_after=1000,
    )
    text = str(plan)
    assert "l1, MACs 50 %: MACs 2,000 -> 1,000" in text
    assert "conv1: keep 2 of 4" in text
    assert "left alone fc: the output" in text
