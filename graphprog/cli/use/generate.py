"""``graphprog generate``: text that continues prompts."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import graphprog as gp
from graphprog.cli.models import NoCache, open_model
from graphprog.errors import DataError, FileError
from graphprog.utils.lazy import load


def generate(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="Name of a language model, or its decoder as an .onnx file.")
    ],
    prompts: Annotated[
        list[str] | None, typer.Argument(help="Texts to continue; without any, lines of input.")
    ] = None,
    program: Annotated[
        Path | None, typer.Option(help="Program that gp.save wrote, or the folder of a run.")
    ] = None,
    tokenizer: Annotated[
        str, typer.Option(help="Of an .onnx file: a folder or name of transformers.")
    ] = "",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a text.")] = 64,
    temperature: Annotated[
        float | None, typer.Option(help="Divides the logits; without it, the likeliest token.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample from so many tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from this probability.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the samples.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Texts for each prompt.")] = 1,
    beams: Annotated[int, typer.Option(min=1, help="Beams; 1 for no beam search.")] = 1,
    stop: Annotated[
        list[str] | None, typer.Option(help="Text that ends an answer; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    no_cache: NoCache = False,
) -> None:
    """Continue prompts; the text for one prompt appears as it is written."""
    given = prompts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not given:
        raise DataError("there is no prompt", ['graphprog generate MODEL "Once upon a time"'])
    writer = _writer(model, program, tokenizer, no_cache)
    streams = len(given) == samples == beams == 1 and not as_json and not stop
    found = gp.generate(
        writer,
        given,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        num_return_sequences=samples,
        num_beams=beams,
        stop=stop or (),
        streamer=_show if streams else None,
        progress=False if streams or (context.obj and context.obj.quiet) else None,
    )
    if as_json:
        rows = [{**dataclasses.asdict(one), "prompt": given[one.prompt]} for one in found]
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False, default=str))
    elif streams:
        typer.echo()
    else:
        for one in found:
            typer.echo(f"{given[one.prompt]}{one.text}")


def _show(token: Any) -> None:
    typer.echo(token.text, nl=False)


def _writer(model: str, program: Path | None, tokenizer: str, no_cache: bool) -> Any:
    """Return what writes: a decoder file, a model, or a model with a program.

    Raises:
        FileError: a decoder file takes no other program.
    """
    if model.endswith(".onnx"):
        if program is not None:
            raise FileError(f"{model}: has its program folded in", ["leave out --program"])
        opened = load("graphprog.serve.texts:tokenizer_of")(tokenizer)
        return load("graphprog.backends.onnxruntime.decoder:Decoder")(model, opened)
    if program is not None and program.is_dir():
        program = load("graphprog.cli.training.run_folder:RunFolder")(program).require_program()
    graph = open_model(model, no_cache)
    return graph if program is None else gp.load(program, graph)
