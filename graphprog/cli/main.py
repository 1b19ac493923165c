"""The command ``graphprog``: its options, its commands, and what becomes of errors."""

from __future__ import annotations

import dataclasses
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from graphprog.cli.diff import diff
from graphprog.cli.draw import draw
from graphprog.cli.export import export
from graphprog.cli.inspect import inspect
from graphprog.cli.methods import methods
from graphprog.cli.rewrite import rewrite
from graphprog.cli.serve import serve
from graphprog.cli.show import show
from graphprog.cli.training.evaluate import evaluate
from graphprog.cli.training.init import init
from graphprog.cli.training.interrupted import InterruptedRunError
from graphprog.cli.training.schema import schema
from graphprog.cli.training.train import train
from graphprog.cli.use.generate import generate
from graphprog.cli.use.hub import pull, push
from graphprog.cli.use.predict import predict
from graphprog.errors import GraphprogError
from graphprog.utils.version import __version__

MISTAKE, FAILURE, INTERRUPTED, BROKEN_PIPE = 2, 1, 130, 141
"""Exit codes: of a user's mistake, of a failure in the program, and as shells give to signals."""

app = typer.Typer(
    name="graphprog",
    help="Reprogram frozen PyTorch models by rewriting their graphs.",
    epilog="MODEL is timm:resnet18, torchvision:resnet18, hf:owner/name, a .pt2 or .graph file, "
    "package.module:factory, and others: docs/models.md.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(inspect)
app.command()(draw)
app.command()(rewrite)
app.command()(diff)
app.command()(show)
app.command()(init)
app.command()(train)
app.command()(evaluate)
app.command()(schema)
app.command()(export)
app.command()(predict)
app.command()(generate)
app.command()(push)
app.command()(pull)
app.command()(serve)
app.add_typer(methods, name="methods")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Options of all commands.

    Attributes:
        quiet: neither progress bars nor warnings are shown.
    """

    quiet: bool


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"graphprog {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars, no warnings.")] = False,
) -> None:
    """Take the options that stand before a command; :func:`main` reads them anywhere."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return its exit code.

    An error is one message without a traceback, on standard error.

    Args:
        arguments: words after ``graphprog``; by default those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    debug, quiet = _taken(words, "--debug"), _taken(words, "--quiet")
    if quiet or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if quiet:
        warnings.simplefilter("ignore")
    try:
        code = typer.main.get_command(app).main(
            words, "graphprog", standalone_mode=False, obj=Settings(quiet)
        )
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as error:  # typer exits where a pipe is broken
        if not any(isinstance(one, BrokenPipeError) for one in (error, error.__context__)):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to say
        return BROKEN_PIPE
    except typer.TyperException as error:
        typer.echo(f"error: {error.format_message()}", err=True)
        return error.exit_code
    except InterruptedRunError as error:
        typer.echo(f"interrupted: {error}", err=True)
        return INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        return INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _told(error, debug)
    if code == INTERRUPTED:  # typer gives a number to Ctrl-C
        typer.echo("interrupted", err=True)
    return code if isinstance(code, int) else 0


def _taken(words: list[str], option: str) -> bool:
    """Take an option out of the words, wherever it stands."""
    end = words.index("--") if "--" in words else len(words)
    places = [place for place, word in enumerate(words[:end]) if word == option]
    for place in reversed(places):
        del words[place]
    return bool(places)


def _told(error: Exception, debug: bool) -> int:
    """Print an error for people; return the exit code."""
    if isinstance(error, GraphprogError):
        typer.echo(f"error: {error}", err=True)
        return MISTAKE
    typer.echo(f"error: {type(error).__name__}: {error}", err=True)
    if not debug:
        typer.echo("Try: graphprog --debug ..., which shows where", err=True)
    return FAILURE
