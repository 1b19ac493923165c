"""Models of a command line."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

import graphprog as gp
from graphprog.cli.capture_cache import SCHEMES, kept_or_captured
from graphprog.errors import CaptureError, GraphprogError

Model = Annotated[str, typer.Argument(help="Name or file of a model, such as timm:resnet18.")]

NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither read nor keep captures.")]


def open_model(name: str, no_cache: bool = False) -> gp.Graph:
    """Capture a model by name; modules are also looked for in the working directory.

    Captures of models of libraries are kept; see :mod:`graphprog.cli.capture_cache`.

    Raises:
        CaptureError: there is no such model, or the function that makes it failed; says where.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        if name.partition(":")[0] in SCHEMES and not no_cache:
            return kept_or_captured(name)
        return gp.capture(name)
    except GraphprogError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise CaptureError(
            f"{name}: {type(error).__name__}: {error}, at {place.filename}:{place.lineno}",
            ["graphprog --debug ..., which shows the calls that led there"],
        ) from error
