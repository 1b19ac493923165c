"""`make lint` fails where an import points up."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.support.environments import ROOT, run

UPWARD = {
    "at the top": "from graphprog.compiler.program import Program\n",
    "in a function": "def late():\n    from graphprog.compiler.program import Program\n",
    "for types": (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from graphprog.compiler.program import Program\n"
    ),
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("graphprog", "passes", "backends", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.parametrize("where", UPWARD)
def test_an_import_that_points_up_fails(checkout: Path, where: str) -> None:
    changed = checkout / "graphprog" / "ir" / "symbols.py"
    held = changed.read_text(encoding="utf-8")
    changed.write_text(held + UPWARD[where], encoding="utf-8")
    done = run([sys.executable, "tools/layers.py"], checkout)
    changed.write_text(held, encoding="utf-8")
    assert done.returncode == 1
    assert "graphprog.ir is not allowed to import graphprog.compiler" in done.stdout
    assert "A circle of imports" in done.stdout
