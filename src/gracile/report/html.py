"""The report: a page from a run's record, with styles and charts inside."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import jinja2
import yaml
from markupsafe import Markup

from gracile.records import (
    Run,
    atomic_bytes,
    bytes_text,
    count_text,
    number_text,
    ratio_text,
    runtime_text,
    seconds_text,
)

from .charts import bars, lines, width_bar
from .quant_view import quantized
from .view import (
    accuracy_path,
    figures,
    kernels_of,
    layer_rows,
    only_weights,
    sensitivities,
    speed_groups,
    training_curves,
    widths_table,
)


def html(run: Run) -> str:
    """Render ``run`` as one HTML page that loads nothing and runs no script."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": bytes_text,
        "count": count_text,
        "number": number_text,
        "ratio": ratio_text,
        "runtime": runtime_text,
        "seconds": seconds_text,
        "yaml": lambda data: yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100),
    }
    page = environment.get_template("report.html.j2")
    return page.render(
        run=run,
        verb="train" if only_weights(run) else "compress",
        style=Markup(_template("style.css")),  # ours, not the user's
        figures=figures(run),
        speeds=speed_groups(run),
        layers=layer_rows(run),
        widths=widths_table(run),
        path=accuracy_path(run),
        curves=training_curves(run),
        sensitivities=sensitivities(run),
        quantized=quantized(run),
        kernels_of=kernels_of(run),
        bars=bars,
        lines=lines,
        width_bar=width_bar,
    )


def write(run: Run, path: Path | str) -> Path:
    """Write the page of ``run`` to ``path``, wholly or not at all.

    Raises:
        StorageError: The file cannot be written.
    """
    path = Path(path)
    atomic_bytes(path, html(run))
    return path


def _template(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")
