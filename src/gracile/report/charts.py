"""Small charts: horizontal bars as HTML, so that they fit any width, and curves as SVG.

Colours come from the page's style sheet by class (``c0`` to ``c5``), so that they follow light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 14, 34


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar: ``value`` with an interval from ``low`` to ``high``; ``colour`` is an index."""

    label: str
    value: float
    low: float
    high: float
    text: str
    colour: int = 0


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    marks: Sequence[str] = ()


def bars(items: Sequence[Bar]) -> Markup:
    """Draw bars on one scale, each with its interval as a whisker.

    Example:
        >>> "width:50.00%" in bars([
        ...     Bar(label="a", value=1, low=1, high=1, text="1"),
        ...     Bar(label="b", value=2, low=2, high=2, text="2"),
        ... ])
        True
    """
    top = max((item.high for item in items), default=0.0) or 1.0
    rows = [_bar(item, top) for item in items]
    return Markup('<div class="bars">{}</div>').format(Markup("").join(rows))


def _bar(item: Bar, top: float) -> Markup:
    low, high = 100 * item.low / top, 100 * item.high / top
    return Markup(
        '<div class="bar"><span class="bar-label">{}</span><span class="track">'
        '<span class="fill c{}" style="width:{:.2f}%"></span>'
        '<span class="whisker" style="left:{:.2f}%;width:{:.2f}%"></span></span>'
        '<span class="bar-text">{}</span></div>'
    ).format(item.label, item.colour, 100 * item.value / top, low, max(high - low, 0.0), item.text)


def width_bar(before: int, after: int, widest: int) -> Markup:
    """Draw a layer's width before (outline) and after (filled), on the scale of the widest layer."""
    outer = 100 * before / max(widest, 1)
    inner = 100 * after / max(before, 1)
    return Markup(
        '<span class="width" style="width:{:.1f}%">'
        '<span class="width-kept" style="width:{:.1f}%"></span></span>'
    ).format(max(outer, 2.0), inner)


def lines(series: Sequence[Series], *, x: str, y: str, names: Sequence[str] = ()) -> Markup:
    """Draw curves with axes named ``x`` and ``y``; nothing when there is nothing to draw.

    ``names`` stand under x = 0, 1, 2, ... in place of numbers, in two rows so that they fit.
    """
    points = [(a, b) for one in series for a, b in zip(one.x, one.y, strict=True)]
    if not points:
        return Markup("")
    xs, ys = [a for a, _ in points], [b for _, b in points]
    across, up = _axis(min(xs), max(xs), padded=False), _axis(min(ys), max(ys), padded=True)
    body = Markup("").join([*_grid(across, up, x, y, names), *(_curve(one, across, up) for one in series)])
    svg = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
    return svg.format(WIDTH, HEIGHT, f"{y} over {x}", body)


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


def _axis(low: float, high: float, *, padded: bool) -> _Axis:
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    step = _nice((high - low) / 4)
    if padded:
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    ticks = [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return _Axis(low, high, tuple(ticks))


def _nice(step: float) -> float:
    """Round a step to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= step * 0.999)


def _at(across: _Axis, up: _Axis, x: float, y: float) -> tuple[float, float]:
    return (
        LEFT + across.share(x) * (WIDTH - LEFT - RIGHT),
        HEIGHT - BOTTOM - up.share(y) * (HEIGHT - TOP - BOTTOM),
    )


def _grid(across: _Axis, up: _Axis, x: str, y: str, names: Sequence[str]) -> list[Markup]:
    parts = []
    for tick in up.ticks:
        _, at = _at(across, up, across.low, tick)
        parts.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                '<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{:.4g}</text>'
            ).format(LEFT, WIDTH - RIGHT, at, at, LEFT - 6, at + 4, tick)
        )
    for place, (tick, text) in enumerate(_ticks(across, names)):
        at, _ = _at(across, up, tick, up.low)
        below = 16 + 13 * (place % 2 if names else 0)
        anchor = "start" if at <= LEFT else "end" if names and at >= WIDTH - RIGHT else "middle"
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
                at, HEIGHT - BOTTOM + below, anchor if names else "middle", text
            )
        )
    titles = Markup(
        '<text class="axis" x="{}" y="{}" text-anchor="end">{}</text>'
        '<text class="axis" x="{}" y="10">{}</text>'
    )
    parts.append(titles.format(WIDTH - RIGHT, HEIGHT - 4, x, LEFT, y))
    return parts


def _ticks(across: _Axis, names: Sequence[str]) -> list[tuple[float, str]]:
    if names:
        return [(float(place), name) for place, name in enumerate(names)]
    return [(tick, f"{tick:.4g}") for tick in across.ticks]


def _curve(one: Series, across: _Axis, up: _Axis) -> Markup:
    points = [_at(across, up, a, b) for a, b in zip(one.x, one.y, strict=True)]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    dots = Markup("").join(
        Markup(
            '<circle class="s{}" cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}: {:.4g}</title></circle>'
        ).format(one.colour, a, b, one.marks[i] if one.marks else one.name, one.y[i])
        for i, (a, b) in enumerate(points)
    )
    return Markup('<polyline class="s{}" points="{}"/>{}').format(one.colour, escape(path), dots)
