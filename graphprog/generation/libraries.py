"""The parts of transformers that choosing tokens reuses; installed where text is generated."""

from __future__ import annotations

import importlib
from typing import Any

from graphprog.errors import ProgramError


def logits_process() -> Any:
    """The module of logits processors.

    Raises:
        ProgramError: transformers is not installed.
    """
    try:
        return importlib.import_module("transformers.generation.logits_process")
    except ImportError as error:
        raise ProgramError(
            f"drawing tokens needs the logits processors of transformers: {error}",
            ["pip install transformers"],
        ) from error
