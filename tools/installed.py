"""The package in the shape in which it is installed, for tools that read folders.

Type checkers and import checkers do not read setuptools' package-dir table, so graphprog.passes and
graphprog.backends are invisible to them in the checkout.
"""

from __future__ import annotations

import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def mapped_folders() -> dict[str, str]:
    """Folder inside the installed package -> folder of the checkout, outermost first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    table: dict[str, str] = settings["tool"]["setuptools"]["package-dir"]
    return {package.replace(".", "/"): folder for package, folder in sorted(table.items())}


@contextmanager
def installed_tree() -> Iterator[Path]:
    """A throw-away folder that holds the package as pip would install it."""
    with tempfile.TemporaryDirectory() as tree:
        for installed, folder in mapped_folders().items():
            shutil.copytree(
                ROOT / folder,
                Path(tree) / installed,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        yield Path(tree)


def in_checkout(report: str) -> str:
    """A report whose paths are those of the checkout."""
    for installed, folder in mapped_folders().items():
        report = report.replace(f"{installed}/", f"{folder}/")
    return report
