"""Charts draw what they are given, to scale."""

from __future__ import annotations

import re

import pytest

from gracile.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Bar, Series, bars, lines, width_bar


def test_bars_share_a_scale_and_whiskers_span_the_interval() -> None:
    drawn = bars(
        [
            Bar(label="a", value=50, low=40, high=60, text="50"),
            Bar(label="b", value=90, low=80, high=100, text="90"),
        ]
    )
    assert re.findall(r'fill c0" style="width:([\d.]+)%', drawn) == ["50.00", "90.00"]
    assert re.findall(r"left:([\d.]+)%;width:([\d.]+)%", drawn) == [("40.00", "20.00"), ("80.00", "20.00")]


def test_labels_are_escaped() -> None:
    assert "<b>" not in bars([Bar(label="<b>", value=1, low=1, high=1, text="1")])


def test_no_bars() -> None:
    assert "bar-label" not in bars([])


@pytest.mark.parametrize(
    ("before", "after", "outer", "inner"), [(64, 32, "100.0", "50.0"), (16, 0, "25.0", "0.0")]
)
def test_width_bar(before: int, after: int, outer: str, inner: str) -> None:
    assert re.findall(r"width:([\d.]+)%", width_bar(before, after, 64)) == [outer, inner]


def test_a_curve_stays_inside_and_keeps_its_order() -> None:
    drawn = lines([Series(name="a", x=[0, 1, 2], y=[3.0, 1.0, 2.0])], x="epoch", y="loss")
    found = re.search(r'points="([^"]+)"', drawn)
    assert found
    points = [tuple(map(float, pair.split(","))) for pair in found[1].split()]
    assert all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in points)
    assert points[0][0] < points[1][0] < points[2][0]
    assert points[0][1] < points[2][1] < points[1][1]  # SVG counts downwards
    assert "epoch" in drawn
    assert "loss" in drawn


def test_one_point_and_a_flat_curve_are_drawn() -> None:
    assert lines([Series(name="a", x=[1], y=[5.0])], x="x", y="y").count("<circle") == 1
    assert lines([Series(name="a", x=[1, 2], y=[5.0, 5.0])], x="x", y="y").count("<circle") == 2


def test_nothing_to_draw() -> None:
    assert lines([], x="x", y="y") == ""
