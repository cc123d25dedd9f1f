"""``gracile inspect``: what a model is made of and what can be taken from it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gracile.errors import UsageError
from gracile.records import bytes_text, count_text

from .show import console, error_console

if TYPE_CHECKING:
    from torch import nn

    from gracile.graph import Provenance
    from gracile.records import Cost


def inspect(
    model: Annotated[str, typer.Argument(help="gracile:, torchvision: or timm:NAME, or file.py:function.")],
    weights: Annotated[Path | None, typer.Option(help="A .safetensors or .pt (weights only).")] = None,
    shape: Annotated[
        str | None, typer.Option("--input", metavar="C,H,W", help="Shape of one input; guessed where known.")
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="Argument of the constructor.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List layers, costs, groups of channels that go together, and what can't be touched and why."""
    from gracile import graph, zoo

    built = zoo.load_model(model, weights=weights, options=parse_options(options or []))
    sizes = sizes_of(model, built, shape)
    provenance = graph.trace(graph.capture(built, zoo.example_inputs(sizes, batch=1)))
    cost = provenance.cost()
    if as_json:
        typer.echo(json.dumps(_plain(model, sizes, cost, provenance), indent=2))
    else:
        _show(model, sizes, cost, provenance)


def parse_options(texts: list[str]) -> dict[str, Any]:
    """Read ``name=value`` texts, values as YAML.

    Raises:
        UsageError: A text has no ``=``, or its value is not YAML.

    Example:
        >>> parse_options(["classes=100", "bias=false"])
        {'classes': 100, 'bias': False}
    """
    from gracile.pipeline.source import yaml_value

    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError("--option", wanted="NAME=VALUE", found=repr(text))
        found[name] = yaml_value(value, f"--option {text}")
    return found


def random_weights(spec: str, weights: Path | None, options: list[str]) -> str:
    """A sentence for a model of a zoo that nobody gave weights; "" elsewhere.

    Example:
        >>> random_weights("gracile:resnet20", None, [])
        'No --weights: these numbers are random, as a fresh network has them.'
        >>> random_weights("net.py:build", None, [])
        ''
    """
    library = spec.partition(":")[0] in ("gracile", "torchvision", "timm")
    told = any(text.partition("=")[0] in ("pretrained", "weights") for text in options)
    return (
        ""
        if weights or told or not library
        else ("No --weights: these numbers are random, as a fresh network has them.")
    )


def tell_random_weights(spec: str, weights: Path | None, options: list[str]) -> None:
    """Print :func:`random_weights` beside the results, which may be JSON."""
    if note := random_weights(spec, weights, options):
        error_console().print(note, soft_wrap=True)


def sizes_of(spec: str, model: nn.Module, shape: str | None) -> tuple[int, ...]:
    """Shape of one input: what ``--input`` says, else what the model tells.

    Raises:
        UsageError: Neither does.
    """
    from gracile import zoo

    found = parse_sizes(shape) if shape else zoo.input_shape(model) or zoo.input_shape(spec)
    if found is None:
        do = "Give it with --input, such as --input 3,224,224."
        raise UsageError(spec, wanted="the shape of one input", found="a model that does not tell it", do=do)
    return found


def parse_sizes(shape: str) -> tuple[int, ...]:
    """Read ``3,224,224`` or ``3x224x224``.

    Raises:
        UsageError: It is something else.

    Example:
        >>> parse_sizes("3x32x32")
        (3, 32, 32)
    """
    try:
        sizes = tuple(int(part) for part in shape.replace("x", ",").split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise UsageError("--input", wanted="sizes such as 3,224,224", found=repr(shape))
    return sizes


def _plain(model: str, shape: tuple[int, ...], cost: Cost, provenance: Provenance) -> dict[str, Any]:
    """Everything as JSON data."""
    return {
        "model": model,
        "input": list(shape),
        "cost": asdict(cost),
        "groups": [
            {"name": group.name, "units": group.units, "members": list(group.members)}
            for group in provenance.groups
        ],
        "frozen": [asdict(skipped) for skipped in provenance.frozen],
    }


def _show(model: str, shape: tuple[int, ...], cost: Cost, provenance: Provenance) -> None:
    screen = console()
    screen.print(model, style="bold", end="")
    screen.print(f" on one input of {' x '.join(map(str, shape))}")
    screen.print(
        f"{count_text(cost.params)} parameters, {count_text(cost.macs)} multiply-adds, "
        f"{bytes_text(cost.activation_bytes)} of activations in all, "
        f"{bytes_text(cost.peak_activation_bytes)} at once at most\n"
    )
    layers = _table("layer", "kind", weight=None, output=None, parameters=None, **{"multiply-adds": None})
    for layer in cost.layers:
        layers.add_row(
            layer.name,
            layer.kind,
            "x".join(map(str, layer.weight_shape)),
            "x".join(map(str, layer.output_shape[1:])),
            count_text(layer.params),
            count_text(layer.macs),
        )
    screen.print(layers)
    screen.print(f"\n{len(provenance.groups)} groups of channels that go together", style="bold")
    groups = _table("group", channels=None)
    groups.add_column("written by, read by", overflow="fold")
    for group in provenance.groups:
        written, read = (", ".join(_owners(slots)) for slots in (group.writers, group.readers))
        groups.add_row(group.name, str(group.units), f"{written} -> {read}")
    screen.print(groups)
    screen.print(f"\n{len(provenance.frozen)} places that can't be touched", style="bold")
    for skipped in provenance.frozen:
        screen.print(f"  {skipped.where}: {skipped.why}")
        if skipped.source:
            screen.print(f"      {skipped.source}", style="dim", soft_wrap=True)


def _table(*left: str, **right: None) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right")
    return table


def _owners(slots: Any) -> list[str]:
    return list(dict.fromkeys(slot.param.rpartition(".")[0] or slot.param for slot in slots))
