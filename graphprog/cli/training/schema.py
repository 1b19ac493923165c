"""``graphprog schema``: the schema of configurations, for editors."""

from __future__ import annotations

import typer

from graphprog.utils.lazy import load


def schema() -> None:
    """Print the JSON schema of configurations, which editors check and complete with."""
    typer.echo(load("graphprog.cli.config.read:schema_text")(), nl=False)
