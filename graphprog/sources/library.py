"""Libraries of models, imported when a name needs them."""

from __future__ import annotations

import importlib
from typing import Any

from graphprog.errors import CaptureError


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
        raise CaptureError(
            f"{user} needs {top}, which cannot be imported: {type(error).__name__}: {error}",
            [f"install a {top} made for this version of torch: {command}"],
        ) from error
