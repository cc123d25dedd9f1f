"""``gracile schema``: what a recipe may hold."""

from __future__ import annotations

import json

import typer


def schema() -> None:
    """Print the JSON schema of recipes; editors check and complete recipes with it."""
    from gracile.pipeline import Recipe

    typer.echo(json.dumps(Recipe.model_json_schema(), indent=2))
