"""``graphprog serve``: a model over HTTP, with programs that come and go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from graphprog.cli.models import NoCache, open_model
from graphprog.errors import BackendError, FileError
from graphprog.utils.lazy import load

_TOKEN = "GRAPHPROG_TOKEN"


def serve(
    model: Annotated[
        str,
        typer.Argument(help=".onnx file, folder of export_multi_graph, or the name of a model."),
    ],
    program: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Program to serve; may be repeated."),
    ] = None,
    programs: Annotated[
        Path | None, typer.Option(help="Folder of programs, each named by its file.")
    ] = None,
    tokenizer: Annotated[
        str, typer.Option(help="Tokenizer of an .onnx file: a folder or name of transformers.")
    ] = "",
    name: Annotated[str, typer.Option(help="Name of the model for clients.")] = "model",
    host: Annotated[str, typer.Option(help="Address; 0.0.0.0 for all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the token for changing programs; or {_TOKEN}."),
    ] = None,
    providers: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Of ONNX Runtime.")] = None,
    max_body: Annotated[int, typer.Option(help="Bytes of a request.")] = 2**25,
    max_batch: Annotated[int, typer.Option(help="Rows computed together.")] = 32,
    max_queue: Annotated[int, typer.Option(help="Rows that wait; beyond, 429.")] = 1024,
    max_length: Annotated[int, typer.Option(help="Tokens of a text or prompt.")] = 4096,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a generated text.")] = 1024,
    wait: Annotated[float, typer.Option(help="Milliseconds to wait for others.")] = 2.0,
    timeout: Annotated[float, typer.Option(help="Seconds to send a request; to compute it.")] = 30,
    no_cache: NoCache = False,
) -> None:
    """Serve a model: Open Inference Protocol, predictions, completions, programs, metrics."""
    for needed in ("fastapi", "uvicorn", "prometheus_client"):
        load("graphprog.sources.library:library")(needed, "graphprog serve", '"graphprog[serve]"')
    limits = load("graphprog.serve.limits:Limits")(
        body=max_body,
        memory=max(2**29, 2 * max_body),
        batch=max_batch,
        queue=max_queue,
        length=max_length,
        tokens=max_tokens,
        wait=wait / 1e3,
        seconds=timeout,
    )
    load("graphprog.serve.logs:log_to_stderr")()
    files = _files(program or (), programs)
    served = load("graphprog.serve.open:open_served")(
        model,
        files,
        limits,
        capture=lambda: open_model(model, no_cache),
        name=name,
        tokenizer=tokenizer,
        providers=providers,
        threads=threads,
    )
    app = load("graphprog.serve.app:application")(served, _token(token_file))
    load("graphprog.serve.server:serve")(app, limits, host, port)


def _files(given: Sequence[str], folder: Path | None) -> dict[str, Path]:
    """Return the files of programs by name."""
    found: dict[str, Path] = {}
    if folder is not None:
        if not folder.is_dir():
            raise FileError(f"{folder}: no such folder", ["--program NAME=FILE for one file"])
        found |= {file.stem: file for file in sorted(folder.glob("*.safetensors"))}
    for text in given:
        name, separator, file = text.partition("=")
        if not (name and separator and file):
            raise BackendError(
                f"--program {text}: not NAME=FILE", ["--program digits=digits.safetensors"]
            )
        found[name] = Path(file)
    if missing := [file for file in found.values() if not file.is_file()]:
        raise FileError(f"{missing[0]}: no such file", ["check the path"])
    return found


def _token(file: Path | None) -> str:
    """Return the token of changes; empty without one."""
    if file is None:
        return os.environ.get(_TOKEN, "")
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{file}: cannot be read: {error}") from error
    if not token:
        raise FileError(f"{file}: holds no token")
    return token
