"""Reading ``.pt2`` files without running anything that they hold."""

from __future__ import annotations

import ast
import json
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from graphprog.errors import FileError

_EXPRESSION = (
    *(ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Constant, ast.Load, ast.Compare),
    *(ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.cmpop),
)


def read_exported(path: Path) -> ExportedProgram:
    """Read a ``.pt2`` file; pickled objects, and code in place of a size, are refused.

    Raises:
        FileError: the file is absent, corrupt, or holds more than tensors and operations.
    """
    if not path.is_file():
        raise FileError(f"{path}: no such file")
    try:
        _check_sizes(path)
        with _no_pickle():
            return torch.export.load(path)
    except FileError:
        raise
    except Exception as error:
        raise FileError(
            f"{path}: not a readable .pt2 file: {error}",
            ["write it with torch.export.save(program, path)"],
        ) from error


@contextmanager
def _no_pickle() -> Iterator[None]:
    """Forbid the unrestricted pickle that torch falls back to if safe loading fails."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _check_sizes(path: Path) -> None:
    """Check that symbolic sizes are only sizes, because torch evaluates them as code."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".json"):
                for text in _sizes(json.loads(archive.read(name))):
                    if not _is_size(text):
                        raise FileError(f"{path}: {text!r:.80} is not a size, in {name}")


def _sizes(tree: Any) -> Iterator[str]:
    pending = [tree]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if "expr_str" in item:
                yield str(item["expr_str"])
            pending += item.values()
        elif isinstance(item, list):
            pending += item


def _is_size(text: str) -> bool:
    """Whether a text is arithmetic over symbols, such as ``Mul(Symbol('s0'), 2)``."""
    for node in ast.walk(ast.parse(text, mode="eval")):
        if not isinstance(node, _EXPRESSION):
            return False
        if isinstance(node, ast.Call) and not (
            isinstance(node.func, ast.Name) and node.func.id[0].isupper()
        ):
            return False
        if isinstance(node, ast.Constant) and not re.fullmatch(r"-?[\w.]+", str(node.value)):
            return False
    return True
