"""Reading a ``.pt2`` file: what is in it is checked before PyTorch sees it."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from graphprog.capture.pt2_file.archive import CONSTANTS, PROGRAM, WEIGHTS, Archive
from graphprog.capture.pt2_file.program import checked_program
from graphprog.capture.pt2_file.tensors import checked_tensors
from graphprog.errors import FileError, GraphprogError
from graphprog.utils.files import open_regular
from graphprog.utils.json import parse_json, render_json

_BROKEN = ["write it again with torch.export.save(program, path)"]
_TRUST = (
    "pass trust=True if the file is your own: what it holds may then run code",
    "pass the model itself, or a file of graph.save(path)",
)
_MAX_TEXT = 2**27


def read_exported(path: str | os.PathLike[str], trust: bool = False) -> ExportedProgram:
    """Read a ``.pt2`` file.

    Args:
        path: the file.
        trust: read it as PyTorch does, which runs code that the file may hold. By default only
            files of tensors and operations that compute are read, and nothing in them is run.

    Raises:
        FileError: the file is absent or damaged, or holds something that is not on the lists.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"{path}: no such file")
    try:
        if trust:
            return torch.export.load(path)
        with open_regular(path) as file:
            data = _checked(Archive(file))
        return torch.export.load(io.BytesIO(data))
    except GraphprogError as error:
        raise FileError(f"{path}: {error.what}", error.remedies or _TRUST) from error
    except Exception as error:  # a file that is written wrong raises anything
        reason = next(iter(str(error).splitlines()), "")
        raise FileError(
            f"{path}: not a readable .pt2 file: {type(error).__name__}: {reason:.300}", _BROKEN
        ) from error


def _checked(archive: Archive) -> bytes:
    """Return an archive of what is in another, once all of it has been checked."""
    program = checked_program(_json(archive, PROGRAM))
    configurations = {name: _json(archive, name) for name in (WEIGHTS, CONSTANTS)}
    texts = {
        PROGRAM: program,
        **{name: checked_tensors(found, archive, name) for name, found in configurations.items()},
    }
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as new:
        for name in archive.tensors:
            new.writestr(f"model/{name}", archive.read(name))
        for name, document in texts.items():
            new.writestr(f"model/{name}", render_json(document, name))
        # an empty member stands for example inputs, which are pickled and not needed
        new.writestr("model/data/sample_inputs/model.pt", b"")
        for name in archive.marks:
            new.writestr(f"model/{name}", archive.read(name))
    return stored.getvalue()


def _json(archive: Archive, name: str) -> Any:
    data = archive.read(name, _MAX_TEXT)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"{name} is not UTF-8: {error.reason}", _BROKEN) from error
    return parse_json(text, name)
