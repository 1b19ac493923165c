"""The modules of an example, importable while a test runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Example:
    """The modules of one example, by their names; those of another have the same ones."""

    def __init__(self, folder: str) -> None:
        self.folder = EXAMPLES / folder

    def __getattr__(self, name: str) -> ModuleType:
        return importlib.import_module(name)


@contextmanager
def modules_of(folder: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Example]:
    """An example whose modules are forgotten afterwards."""
    found = Example(folder)
    names = [path.stem for path in found.folder.glob("*.py")]
    monkeypatch.syspath_prepend(str(found.folder))
    yield found
    for name in names:
        sys.modules.pop(name, None)
