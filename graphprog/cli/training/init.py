"""``graphprog init``: a configuration with comments, from three answers or flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphprog.errors import FileError
from graphprog.utils.lazy import load

_QUESTIONS = {
    "model": ("Which model? Such as timm:resnet18, hf:owner/name, model.pt2", ""),
    "data": ("Which training data? A folder of classes, table.csv, sklearn:digits, ...", ""),
    "method": ("Which method? blm, linear, vpt-deep, ...: graphprog methods", "blm"),
}


def init(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="File to write.")] = Path(
        "graphprog.toml"
    ),
    model: Annotated[str, typer.Option(help="Name of the model.")] = "",
    data: Annotated[str, typer.Option(help="Training data; docs/command_line.md.")] = "",
    method: Annotated[str, typer.Option(help="Name of a method.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
) -> None:
    """Write a configuration with comments: asks for model, data and method, or takes flags."""
    if config.exists() and not force:
        raise FileError(f"{config}: is there already", ["--force, which replaces it"])
    answers = {"model": model, "data": data, "method": method}
    try:
        for name, (question, default) in _QUESTIONS.items():
            if not answers[name]:
                answers[name] = typer.prompt(question, default=default or None, err=True)
    except typer.Abort as error:
        typer.echo(err=True)
        flags = [f"--{one} ..." for one, given in answers.items() if not given]
        raise FileError("a question has no answer", [" ".join(flags)]) from error
    load("graphprog.cli.config.template:write_template")(config, **answers)
    typer.echo(f"{config}: go on with: graphprog train {config}")
