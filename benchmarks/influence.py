"""How epochs, threshold and interval of Less is More move accuracy and reduction: 50 runs, least squares.

The study of Marelli, Idiap-RR-03-2018, section 4.6, on LeNet-MNIST: ``f = a0 + a1 E + a2 P + a3 I + a4 EP +
a5 EI + a6 PI + a7 EPI`` for the epochs E in 10..40, the ratio P in 0.15..0.25 and the interval I in 1..2.
Factors are coded to -1..1, so a coefficient is half of what its factor changes over its range. ``--factors``
adds the learning rate and the share of the training after which reductions stop. The bars of the rows are the
document's conclusions. Each run is kept on its own (``--keep``), so the study goes on after an interrupt.

    python -m benchmarks.influence --keep runs/influence.jsonl --figure docs/results/influence.svg
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from scipy.stats import qmc

from benchmarks.regression import Fit, fit
from benchmarks.rows import Row, benchmark_main
from gracile import pipeline
from gracile.records import atomic_bytes

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "lenet-mnist-less-is-more.yaml"
OUTCOMES = {"reduction": "parameters gone, points", "accuracy": "accuracy, points"}


@dataclass(frozen=True)
class Factor:
    """A setting that varies from ``low`` to ``high``; ``whole`` ones take whole values only."""

    low: float
    high: float
    whole: bool = False

    def at(self, share: float) -> float:
        """The setting at a share of the range, each whole value being as likely as the others."""
        if not self.whole:
            return self.low + share * (self.high - self.low)
        return float(min(int(self.low + share * (self.high - self.low + 1)), int(self.high)))

    def coded(self, value: float) -> float:
        """The setting on the scale from -1 to 1."""
        return 2 * (value - self.low) / (self.high - self.low) - 1


FACTORS = {
    "epochs": Factor(10, 40, whole=True),
    "ratio": Factor(0.15, 0.25),
    "every": Factor(1, 2, whole=True),
    "lr": Factor(0.01, 0.1),
    "stop": Factor(0.5, 0.9),
}
DOCUMENT = ("epochs", "ratio", "every")


def design(names: list[str], runs: int, seed: int) -> list[dict[str, float]]:
    """Settings of every run: a Latin hypercube, so that each factor's range is covered evenly.

    Example:
        >>> len({point["epochs"] for point in design(["epochs", "ratio"], 31, seed=0)})
        31
    """
    shares = qmc.LatinHypercube(d=len(names), seed=seed).random(runs)
    return [{name: FACTORS[name].at(float(s)) for name, s in zip(names, row, strict=True)} for row in shares]


def overrides(point: dict[str, float], seed: int, extra: list[str]) -> list[str]:
    """What a run changes in the recipe.

    Example:
        >>> overrides({"epochs": 20.0, "ratio": 0.2, "every": 1.0}, 3, [])[:3]
        ['seed=3', 'steps.train.epochs=20', 'steps.train.less_is_more.ratio=0.2']
    """
    epochs = int(point["epochs"])
    changed = [f"seed={seed}", f"steps.train.epochs={epochs}"]
    changed += [f"steps.train.less_is_more.ratio={point['ratio']}"]
    changed += [f"steps.train.less_is_more.every={int(point['every'])}"]
    stop = max(round(epochs * point.get("stop", 0.75)), 1)
    changed += [f"steps.train.less_is_more.stop={stop}"]
    changed += [f"steps.train.lr={point['lr']}"] if "lr" in point else []
    return changed + extra


def one(point: dict[str, float], seed: int, extra: list[str], root: Path | None) -> dict[str, Any]:
    """Train once and say what came of it."""
    recipe = pipeline.load_recipe(RECIPE, overrides(point, seed, extra))
    with tempfile.TemporaryDirectory() as folder:
        record = pipeline.run(recipe, Path(folder) / "run", data_root=root, progress=False)
    return {
        "accuracy": record.after.accuracy,
        "reduction": 100 * (1 - record.after.params / record.before.params),
        "n": record.after.n,
    }


def study(parsed: argparse.Namespace) -> list[dict[str, Any]]:
    """Every run, those that ``--keep`` holds not again."""
    names = parsed.factors.split(",")
    kept: dict[str, dict[str, Any]] = {}
    if parsed.keep is not None and parsed.keep.exists():
        lines = [json.loads(line) for line in parsed.keep.read_text().splitlines()]
        kept = {line["key"]: line["result"] for line in lines}
    found = []
    for seed, point in enumerate(track(design(names, parsed.runs, parsed.seed), "runs")):
        key = json.dumps([point, seed, parsed.overrides], sort_keys=True)
        if key not in kept:
            kept[key] = one(point, seed, parsed.overrides, parsed.data_root)
            if parsed.keep is not None:
                parsed.keep.parent.mkdir(parents=True, exist_ok=True)
                with parsed.keep.open("a") as file:
                    file.write(json.dumps({"key": key, "result": kept[key]}) + "\n")
        found.append({"seed": seed, **point, **kept[key]})
    return found


def fits(entries: list[dict[str, Any]], names: list[str], order: int) -> dict[str, Fit]:
    """One fit an outcome, on coded factors."""
    coded = np.array([[FACTORS[name].coded(entry[name]) for name in names] for entry in entries])
    values = {what: np.array([entry[what] for entry in entries], dtype=np.float64) for what in OUTCOMES}
    return {what: fit(names, coded, values[what], order=order) for what in OUTCOMES}


def rows_of(found: dict[str, Fit]) -> list[Row]:
    """The document's conclusions as bars on the signs of the coefficients."""
    conclusions = [
        ("reduction", "ratio", "> 0"),
        ("reduction", "every", "< 0"),
        ("reduction", "epochs", "> 0"),
        ("accuracy", "ratio", "< 0"),
        ("accuracy", "every", "> 0"),
    ]
    rows = [Row(id="influence.runs", value=found["reduction"].runs, unit="runs", n=1, must=">= 50")]
    for what, name, must in conclusions:
        influence = found[what].of(name)
        rows.append(
            Row(
                id=f"influence.{name}_on_{what}",
                value=influence.value,
                unit="points",
                n=found[what].runs,
                spread=(influence.low, influence.high),
                must=must,
            )
        )
    return rows


def figure(found: dict[str, Fit]) -> str:
    """The coefficients with their 95 % intervals as an SVG, one panel an outcome.

    Example:
        >>> from benchmarks.regression import Influence
        >>> tiny = Fit(influences=(Influence(term=("epochs",), value=1, low=0, high=2),), r2=1.0, runs=9)
        >>> figure({"reduction": tiny}).count("<rect")
        2
    """
    row, left, width, top = 22, 170, 300, 46
    count = max(len(f.influences) for f in found.values())
    height = top + row * count + 16
    whole = len(found) * (left + width + 20)
    parts = [f'<rect width="{whole}" height="{height}" fill="white"/>']
    for place, (what, one_fit) in enumerate(found.items()):
        shown = [i for i in one_fit.influences if i.term]
        reach = max(abs(bound) for i in shown for bound in (i.low, i.high)) or 1.0
        x0 = place * (left + width + 20) + left
        middle = x0 + width / 2
        title = f"{OUTCOMES[what]} (R² {one_fit.r2:.2f}, {one_fit.runs} runs)"
        parts.append(f'<text x="{x0}" y="18" font-weight="bold">{title}</text>')
        parts.append(f'<text x="{x0}" y="34" fill="#666">-{reach:.2g}</text>')
        parts.append(f'<text x="{x0 + width}" y="34" fill="#666" text-anchor="end">+{reach:.2g}</text>')
        for index, i in enumerate(shown):
            y = top + row * index
            ends = [middle + bound / reach * width / 2 for bound in (i.value, i.low, i.high)]
            colour = "#b3452c" if i.value < 0 else "#2c6fb3"
            parts.append(f'<text x="{x0 - 8}" y="{y + 12}" text-anchor="end">{" × ".join(i.term)}</text>')
            parts.append(
                f'<rect x="{min(middle, ends[0]):.1f}" y="{y + 2}" width="{abs(ends[0] - middle):.1f}" '
                f'height="12" fill="{colour}"/>'
            )
            parts.append(
                f'<line x1="{ends[1]:.1f}" x2="{ends[2]:.1f}" y1="{y + 8}" y2="{y + 8}" stroke="#222"/>'
            )
        parts.append(
            f'<line x1="{middle}" x2="{middle}" y1="{top - 4}" y2="{top + row * len(shown)}" stroke="#999"/>'
        )
    style = 'font-family="sans-serif" font-size="12" xmlns="http://www.w3.org/2000/svg"'
    return f'<svg {style} viewBox="0 0 {whole} {height}">{"".join(parts)}</svg>\n'


def run(parsed: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Train, fit, draw."""
    names = parsed.factors.split(",")
    entries = study(parsed)
    found = fits(entries, names, parsed.order)
    if parsed.figure is not None:
        atomic_bytes(parsed.figure, figure(found))
    coefficients = [
        {
            "outcome": what,
            "term": " x ".join(i.term) or "mean",
            "value": i.value,
            "low": i.low,
            "high": i.high,
        }
        for what, one_fit in found.items()
        for i in one_fit.influences
    ]
    return rows_of(found), [*coefficients, *entries]


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes besides ``--json`` and ``--data-root``."""
    parser.add_argument(
        "--factors", default=",".join(DOCUMENT), help=f"of {', '.join(FACTORS)}; the first three always"
    )
    parser.add_argument("--order", type=int, default=3, help="most factors in a product")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the settings")
    parser.add_argument("--figure", type=Path, help="SVG with the coefficients")
    parser.add_argument("--keep", type=Path, help="JSON-lines file: keep runs, go on after an interrupt")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY.PATH=VALUE")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="influence", arguments=arguments))
