"""``graphprog train``: a run by its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphprog.cli.models import NoCache
from graphprog.utils.lazy import load

Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the configuration; may be repeated."),
]


def train(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="See graphprog init.")],
    changes: Changes = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run.")
    ] = False,
    no_cache: NoCache = False,
) -> None:
    """Train a program by a configuration; also under torchrun or accelerate launch."""
    load("graphprog.cli.training.running:run_training")(
        config, changes or [], output, resume, no_cache, bool(context.obj and context.obj.quiet)
    )
