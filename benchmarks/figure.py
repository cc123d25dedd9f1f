"""Curves as an SVG file that stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import escape

from gracile.records import atomic_bytes
from gracile.report.charts import HEIGHT, WIDTH, Series, lines

COLOURS = ("#8a8f98", "#2563eb", "#ea580c", "#16a34a", "#9333ea", "#0891b2")


def write_svg(path: Path, series: Sequence[Series], *, x: str, y: str) -> None:
    """Draw ``series`` (at most six colours) with a legend below.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.svg"
        >>> write_svg(file, [Series(name="one", x=[0, 1], y=[0, 2])], x="sparsity", y="speed-up")
        >>> file.read_text().startswith("<svg xmlns=")
        True
    """
    chart = str(lines(series, x=x, y=y))
    style = "text{font:11px sans-serif;fill:#555}.grid{stroke:#ddd}polyline{fill:none;stroke-width:2}"
    style += "".join(f"polyline.s{i}{{stroke:{c}}}circle.s{i}{{fill:{c}}}" for i, c in enumerate(COLOURS))
    legend = "".join(
        f'<rect x="10" y="{HEIGHT + 14 * i}" width="10" height="10" fill="{COLOURS[one.colour]}"/>'
        f'<text x="25" y="{HEIGHT + 9 + 14 * i}">{escape(one.name)}</text>'
        for i, one in enumerate(series)
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + 14 * len(series) + 6}"'
    body = chart.partition(">")[2].removesuffix("</svg>")
    atomic_bytes(path, f"{head}><style>{style}</style>{body}{legend}</svg>\n")
