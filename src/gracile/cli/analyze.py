"""``gracile analyze``: what quantizing a model does to its layers, before any recipe is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .inspect import parse_options, tell_random_weights
from .show import console

if TYPE_CHECKING:
    from gracile.records import OverflowReport, QuantNoise, QuantSensitivity


def analyze(
    model: Annotated[str, typer.Argument(help="gracile:, torchvision: or timm:NAME, or file.py:function.")],
    data: Annotated[
        str, typer.Option(help="digits, mnist, cifar10, images:FOLDER, ..., or file.py:function.")
    ],
    weights: Annotated[Path | None, typer.Option(help="A .safetensors or .pt (weights only).")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of data sets and weights.")] = None,
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="Argument of the constructor.")
    ] = None,
    weight_bits: Annotated[int, typer.Option(min=2, max=8, help="Bits of weights.")] = 8,
    activation_bits: Annotated[int, typer.Option(min=2, max=8, help="Bits of activations.")] = 8,
    images: Annotated[int, typer.Option(min=1, help="Unlabelled training images that calibrate.")] = 128,
    curves: Annotated[
        bool, typer.Option(help="Quantize each layer alone at 8 to 2 bits; takes longer.")
    ] = False,
    cache: Annotated[Path | None, typer.Option(help="File that keeps the curves.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the noise of every layer and how wide accumulators must be; with --curves, which bear few bits.

    Batch norm is folded first and weights are rounded by least squares: block reconstruction, which
    `compress` takes below 8 bits, needs minutes. No labels and no test images are used.
    """
    from gracile import fold, quantize, zoo
    from gracile.data import find_root, load_data
    from gracile.pipeline.runner import find_weights

    root = find_root(data_root)
    file = find_weights(None if weights is None else str(weights), root)
    built = zoo.load_model(model, weights=file, options=parse_options(options or []))
    chosen = load_data(data, root).calibration(images)
    inputs = (chosen[:1],)
    folded = fold.apply(built, fold.plan(built, inputs)).eval()
    batches = [chosen[start : start + 64] for start in range(0, len(chosen), 64)]
    scheme = quantize.Scheme(
        weight_bits=weight_bits, activation_bits=activation_bits, rounding=quantize.LeastSquares()
    )
    quantized = quantize.ptq(folded, inputs, batches, scheme)
    noise = quantize.noise(quantized, batches)
    sums = quantize.overflow_report(quantized, batches[:1])
    table = quantize.sensitivity(folded, inputs, batches, scheme, cache=cache) if curves else None
    if as_json:
        typer.echo(_json(noise, sums, table))
    else:
        _show(noise, sums, table)
    tell_random_weights(model, weights, options or [])


def _json(noise: QuantNoise, sums: OverflowReport, table: QuantSensitivity | None) -> str:
    import json

    from gracile.records import to_plain

    found: dict[str, Any] = {"noise": to_plain(noise), "accumulators": to_plain(sums)}
    if table is not None:
        found["sensitivity"] = to_plain(table)
    return json.dumps(found, indent=2)


def _show(noise: QuantNoise, sums: OverflowReport, table: QuantSensitivity | None) -> None:
    screen = console()
    widths = {layer.layer: layer for layer in sums.layers}
    screen.print(
        f"Signal to quantization noise of the output: {noise.output_db:.1f} dB on {noise.images} images; no "
        f"input needs more than {sums.bits} bits in an accumulator\n"
    )
    rows = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    rows.add_column("layer", overflow="fold")
    rows.add_column("value", overflow="fold")
    for name in ("weights dB", "own dB", "accumulated dB", "clipped %", "accumulator, seen", "at worst"):
        rows.add_column(name, justify="right")
    for edge in noise.edges:
        width = widths.get(edge.layer)
        rows.add_row(
            edge.layer,
            edge.edge,
            "" if edge.weight_db is None else f"{edge.weight_db:.1f}",
            f"{edge.own_db:.1f}",
            f"{edge.accumulated_db:.1f}",
            f"{100 * edge.clipped:.2g}",
            "" if width is None else f"{width.seen_bits} bits",
            "" if width is None else f"{width.worst_bits} bits",
        )
    screen.print(rows)
    if table is not None:
        screen.print(f"\n{table}")
