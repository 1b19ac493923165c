"""Finding the lines of the user's own code in a traceback."""

from __future__ import annotations

import os
import re
import sysconfig
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

_PACKAGE = Path(__file__).parent.parent
_MAPPED = ("passes", "backends")  # inside the package when installed


def _own_folders() -> tuple[str, ...]:
    beside = () if (_PACKAGE / "passes").exists() else _MAPPED
    folders = [_PACKAGE, *(_PACKAGE.resolve().parent / name for name in beside)]
    return (*map(str, folders), os.path.dirname(torch.__file__))


_OWN = _own_folders()


def user_line(errors: Sequence[BaseException]) -> str:
    """Return the innermost line of the user's code in the tracebacks of errors."""
    frames = [
        (frame.filename, frame.lineno, frame.line)
        for error in errors
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    for error in errors:  # a second error may quote frames that its traceback has lost
        quoted = re.findall(r'File "(.+?)", line (\d+), in .*\n +(.*)', str(error))
        frames += [(name, int(number), line) for name, number, line in quoted]
        own = [frame for frame in frames if is_users(frame[0])]
        if own:
            name, number, line = own[-1]
            return f"\n  at {name}:{number}: {line}"
    return ""


@cache
def is_users(filename: str) -> bool:
    """Whether a file belongs neither to this package, nor to PyTorch, nor to Python."""
    if filename.startswith("<") or any(filename.startswith(path + os.sep) for path in _OWN):
        return False
    standard = sysconfig.get_path("stdlib")
    return not filename.startswith(standard + os.sep) or "site-packages" in filename
