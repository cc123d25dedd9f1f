"""What the page shows, computed from a run's record: no numbers are made in the template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gracile.records import (
    COMPRESSED,
    INT8_ONLY,
    ORIGINAL,
    RUNTIMES,
    Run,
    Speed,
    bytes_text,
    count_text,
    number_text,
    ratio_text,
    runtime_text,
)

from .charts import Bar, Series

_BITS = (("W", "weight_bits"), ("A", "activation_bits"))
_MODELS = (ORIGINAL, INT8_ONLY, COMPRESSED)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One headline figure before and after; ``good`` is None where neither is better."""

    name: str
    before: str
    after: str
    change: str
    good: bool | None
    note: str = ""


def figures(run: Run) -> tuple[Figure, ...]:
    """The headline figures, accuracy first."""
    before, after = run.before, run.after
    difference = after.accuracy - before.accuracy
    settled = run.comparison is not None and (run.comparison.high < 0 or run.comparison.low > 0)
    place = f"{runtime_text(after.runtime)}, batch {after.batch}"
    return (
        Figure(
            name="Accuracy",
            before=f"{before.accuracy:.1f} %",
            after=f"{after.accuracy:.1f} %",
            change=f"{difference:+.1f} points",
            good=difference > 0 if settled else None,
            note=f"{after.n:,} test images" + ("" if settled else "; within the noise"),
        ),
        _figure(
            "Images a second",
            before.images_per_s,
            after.images_per_s,
            number_text,
            more=True,
            note=f"{place}; before: {runtime_text(before.runtime)}",
        ),
        _figure("File", before.size_bytes, after.size_bytes, bytes_text, note=_file_note(run)),
        _figure("Multiply-adds", before.macs, after.macs, count_text, note="counted, one image"),
        _figure("Parameters", before.params, after.params, count_text, note="counted"),
    )


def only_weights(run: Run) -> bool:
    """Whether the run only trained: it leaves weights, not a file to deploy."""
    return str(run.plan.get("deployed", "")).endswith(".safetensors")


def kernels_of(run: Run) -> str:
    """Where the kernels of the deployed file were listed."""
    deployed = run.plan.get("deployed", "")
    told = (s.detail for s in run.steps if "target" in s.detail)
    return next((d["target"] for d in told if d.get("file", deployed) == deployed), "ONNX Runtime")


def _file_note(run: Run) -> str:
    return "weights before and after" if only_weights(run) else "float ONNX against deployed file"


def _figure(name: str, before: float, after: float, text: Any, *, more: bool = False, note: str) -> Figure:
    """A figure whose change is a ratio; smaller is better unless ``more``."""
    ratio = after / before if before else 0.0
    good = None if not before or after == before else (after > before) == more
    return Figure(
        name=name,
        before=text(before) if before else "-",
        after=text(after) if after else "-",
        change=ratio_text(ratio) if before else "",
        good=good,
        note=note,
    )


@dataclass(frozen=True, kw_only=True)
class SpeedGroup:
    """Everything measured at one batch size: bars of throughput, and rows with both intervals."""

    batch: int
    bars: tuple[Bar, ...]
    rows: tuple[Speed, ...]


def speed_groups(run: Run) -> tuple[SpeedGroup, ...]:
    """Speeds by batch size, largest batch first; in each by runtime, models having a colour each."""
    runtimes = list(RUNTIMES)
    groups = []
    for batch in sorted({speed.batch for speed in run.speeds}, reverse=True):
        rows = tuple(
            sorted(
                (speed for speed in run.speeds if speed.batch == batch),
                key=lambda speed: (runtimes.index(speed.runtime), _place(speed.model)),
            )
        )
        groups.append(SpeedGroup(batch=batch, bars=tuple(_speed_bar(s) for s in rows), rows=rows))
    return tuple(groups)


def _place(model: str) -> int:
    """Original first, compressed last."""
    return _MODELS.index(model) if model in _MODELS else len(_MODELS)


def _speed_bar(speed: Speed) -> Bar:
    return Bar(
        label=f"{speed.model} · {runtime_text(speed.runtime)}",
        value=speed.images_per_s,
        low=speed.images_per_s_low,
        high=speed.images_per_s_high,
        text=number_text(speed.images_per_s),
        colour=(0, 2, 1, 3)[_place(speed.model)],
    )


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer with weights: widths are output channels."""

    name: str
    kind: str
    before: int
    after: int
    widest: int
    macs_before: int
    macs_after: int
    bits: str
    kernel: str
    integer: bool | None


def layer_rows(run: Run) -> tuple[LayerRow, ...]:
    """Layers with their widths, bits and the kernels that ran."""
    kernels = {str(row["layer"]): row for row in run.kernels}
    widest = max((layer["width_before"] for layer in run.layers), default=1)
    rows = []
    for layer in run.layers:
        kernel = kernels.get(layer["name"], {})
        bits = [f"{letter}{layer[key]}" for letter, key in _BITS if layer.get(key) is not None]
        rows.append(
            LayerRow(
                name=layer["name"],
                kind=layer["kind"],
                before=layer["width_before"],
                after=layer["width_after"],
                widest=widest,
                macs_before=layer["macs_before"],
                macs_after=layer["macs_after"],
                bits="".join(bits) or "float",
                kernel=str(kernel.get("kernel", "")),
                integer=kernel.get("integer"),
            )
        )
    return tuple(rows)


def accuracy_path(run: Run) -> Series:
    """Accuracy from the original through the steps after it to the deployed file."""
    names = [step.name for step in run.steps]
    after = run.steps[names.index("original") + 1 :] if "original" in names else run.steps
    measured = [(step.name, step.accuracy) for step in after if step.accuracy is not None]
    marks = ["original", *(name for name, _ in measured), "deployed"]
    values = [run.before.accuracy, *(accuracy for _, accuracy in measured), run.after.accuracy]
    return Series(name="accuracy", x=range(len(values)), y=values, marks=marks)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Training curves of one step: accuracies in percent, losses in nats and sparsity in percent over epochs.

    ``left`` is the share of the parameters left, in percent, where training removed some.
    """

    step: str
    accuracy: tuple[Series, ...]
    loss: tuple[Series, ...]
    sparsity: tuple[Series, ...] = ()
    left: tuple[Series, ...] = ()


def training_curves(run: Run) -> tuple[Curve, ...]:
    """Curves of every training step."""
    return tuple(
        Curve(
            step=str(curve["step"]),
            accuracy=_series(curve["epochs"], "accuracy"),
            loss=_series(curve["epochs"], "loss"),
            sparsity=_sparsity(curve.get("sparsity", [])),
            left=_left(curve["epochs"]),
        )
        for curve in run.curves
    )


def _series(epochs: list[dict[str, Any]], what: str) -> tuple[Series, ...]:
    found = []
    for colour, (part, name) in enumerate((("train", "training"), ("holdout", "held out"))):
        known = [epoch for epoch in epochs if epoch.get(f"{part}_{what}") is not None]
        if known:
            xs = [float(epoch["epoch"]) for epoch in known]
            ys = [float(epoch[f"{part}_{what}"]) for epoch in known]
            found.append(Series(name=f"{what}, {name}", x=xs, y=ys, colour=colour))
    return tuple(found)


def _sparsity(points: list[dict[str, Any]]) -> tuple[Series, ...]:
    """Sparsity of the whole model, and of its densest and sparsest layer, where a run pruned in training."""
    if not points:
        return ()
    xs = [float(point["epoch"]) for point in points]
    layers = [list(point["layers"].values()) or [point["sparsity"]] for point in points]
    whole = [100 * float(point["sparsity"]) for point in points]
    return (
        Series(name="sparsity, whole model", x=xs, y=whole),
        Series(name="densest layer", x=xs, y=[100 * float(min(shares)) for shares in layers], colour=1),
        Series(name="sparsest layer", x=xs, y=[100 * float(max(shares)) for shares in layers], colour=2),
    )


def _left(epochs: list[dict[str, Any]]) -> tuple[Series, ...]:
    known = [epoch for epoch in epochs if epoch.get("params_left") is not None]
    if not known:
        return ()
    xs = [float(epoch["epoch"]) for epoch in known]
    ys = [float(epoch["params_left"]) for epoch in known]
    return (Series(name="parameters left", x=xs, y=ys, colour=2),)


@dataclass(frozen=True, kw_only=True)
class Sensitivities:
    """The groups that a step found most sensitive: what narrowing each alone does, over the share removed."""

    step: str
    y: str
    series: tuple[Series, ...]
    groups: int
    images: int


def sensitivities(run: Run) -> tuple[Sensitivities, ...]:
    """Curves of every sensitivity analysis, six groups each at most."""
    found = []
    for step in run.steps:
        table = step.detail.get("sensitivity")
        if not table:
            continue
        ranked = sorted(table["groups"], key=lambda group: -max(value for _, value in group["points"]))
        series = tuple(
            Series(
                name=group["name"],
                x=[100 * (1 - kept / group["units"]) for kept, _ in group["points"]],
                y=[value for _, value in group["points"]],
                marks=[f"{group['name']}, {kept} of {group['units']}" for kept, _ in group["points"]],
                colour=colour,
            )
            for colour, group in enumerate(ranked[:6])
        )
        y = "divergence, nats" if table["metric"] == "kl" else "points lost"
        found.append(
            Sensitivities(step=step.name, y=y, series=series, groups=len(ranked), images=int(table["images"]))
        )
    return tuple(found)


def widths_table(run: Run) -> tuple[dict[str, Any], ...]:
    """Candidate widths that a prune step measured, when it did."""
    return tuple(row for step in run.steps for row in step.detail.get("widths", ()))
