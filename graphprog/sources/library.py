"""Libraries of models, imported when a name needs them."""

from __future__ import annotations

import importlib
from typing import Any

from graphprog.errors import CaptureError

_BUILDS = (
    "install torch and torchvision of one build, such as pip install torch torchvision "
    "--index-url https://download.pytorch.org/whl/cpu"
)


def library(name: str, user: str, install: str = "") -> Any:
    """Import a library of models.

    Args:
        name: module to import.
        user: what needs it, such as ``timm:`` names, for the message.
        install: packages to install; by default the module's name.

    Raises:
        CaptureError: it is not installed, or its import fails; has the command that installs it.
    """
    top = name.partition(".")[0]
    command = f"pip install {install or top}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == top:
            raise CaptureError(f"{user} needs {top}, which is not installed", [command]) from error
        raise CaptureError(
            f"{user} needs {top}, which cannot be imported: {error}",
            [f"pip install {error.name}", command],
        ) from error
    except Exception as error:  # a wheel for another build of torch fails in its own ways
        said = root_of(error)
        other = "torchvision" in f"{error} {said}"
        raise CaptureError(
            f"{user} needs {top}, which cannot be imported: {said}",
            [_BUILDS if other else f"pip install --upgrade {install or top}"],
        ) from error


def root_of(error: BaseException) -> str:
    """Return what the error at the root of others says, with its class."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"
