"""``gracile pack`` and ``gracile unpack``: a model into the fewest bytes, and what an archive holds."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gracile.records import bytes_text

from .inspect import parse_options, sizes_of, tell_random_weights
from .show import console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def pack(
    model: Annotated[str, typer.Argument(help="gracile:, torchvision: or timm:NAME, or file.py:function.")],
    weights: Annotated[Path | None, typer.Option(help="A .safetensors or .pt (weights only).")] = None,
    out: Annotated[Path, typer.Option(help="The archive.")] = Path("model.gracile"),
    shape: Annotated[
        str | None, typer.Option("--input", metavar="C,H,W", help="Shape of one input; guessed where known.")
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="Argument of the constructor.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a model as an archive that gives back every bit and runs without its class."""
    from gracile import pack as packing
    from gracile import zoo

    built = zoo.load_model(model, weights=weights, options=parse_options(options or []))
    inputs = zoo.example_inputs(sizes_of(model, built, shape), batch=1)
    artifact = packing.save(built.eval(), out, inputs)
    plain = sum(t.numel() * t.element_size() for t in built.state_dict().values())
    if as_json:
        typer.echo(json.dumps(asdict(artifact) | {"plain_bytes": plain}, indent=2))
    else:
        ratio = plain / artifact.size_bytes
        text = f"{out}: {bytes_text(artifact.size_bytes)}, {ratio:.1f} times less than the tensors in memory"
        console().print(text, soft_wrap=True)
    tell_random_weights(model, weights, options or [])


def unpack(
    file: Annotated[Path, typer.Argument(help="An archive.")],
    out: Annotated[Path | None, typer.Option(help="Folder; the archive's name without its ending.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write what an archive holds: tensors.safetensors, and the rest as plan.json."""
    from gracile import pack as packing

    folder = out or file.with_suffix("")
    artifacts = packing.unpack(file, folder)
    if as_json:
        typer.echo(json.dumps([asdict(artifact) for artifact in artifacts], indent=2))
        return
    for artifact in artifacts:
        text = f"{folder / artifact.path}: {bytes_text(artifact.size_bytes)}"
        console().print(text, soft_wrap=True)
