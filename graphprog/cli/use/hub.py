"""``graphprog push`` and ``pull``: programs on the Hugging Face Hub, or in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

import graphprog as gp
from graphprog.errors import FileError
from graphprog.utils.lazy import load

Repository = Annotated[
    str, typer.Argument(metavar="REPO", help="owner/name on the Hub, or a folder: ./shared.")
]
Filename = Annotated[str, typer.Option(help="Name of the published file.")]
Revision = Annotated[str | None, typer.Option(help="Branch; for pull, also a tag or commit.")]


def push(
    program: Annotated[Path, typer.Argument(help="Program, or the folder of a run.")],
    repository: Repository,
    filename: Filename = "program.safetensors",
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Of a new repository.")
    ] = None,
    revision: Revision = None,
) -> None:
    """Publish a program with a README made from it; the token is that of hf auth login."""
    if program.is_dir():
        program = load("graphprog.cli.training.run_folder:RunFolder")(program).require_program()
    typer.echo(
        gp.push(program, _place(repository), filename=filename, private=private, revision=revision)
    )


def pull(
    repository: Repository,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; else only its place.")
    ] = None,
    filename: Filename = "program.safetensors",
    revision: Revision = None,
) -> None:
    """Download a program that push published, check it, and print where it is."""
    found = gp.pull(_place(repository), filename, revision)
    if output is None:
        typer.echo(found)
        return
    write = load("graphprog.utils.files:atomic_write")
    if output.resolve() == found.resolve():
        raise FileError(f"{output}: is the published file itself")
    typer.echo(write(output, lambda file: shutil.copyfile(found, file)))


def _place(repository: str) -> str | Path:
    """Return a folder where the text is a path, else the name of a repository."""
    is_path = repository.startswith((".", "/", "~")) or "\\" in repository
    return Path(repository).expanduser() if is_path else repository
