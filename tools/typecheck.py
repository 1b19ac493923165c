"""Type-check graphprog with its mapped folders in place.

Type checkers read folders, not setuptools' package-dir table, so graphprog.passes and
graphprog.backends are invisible to them in the checkout. This builds a throw-away tree shaped
like an installed package, runs ``mypy --package graphprog`` there, and reports the paths of the
checkout. Arguments are handed on to mypy.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def mapped_folders() -> dict[str, str]:
    """Folder inside the installed package -> folder of the checkout, outermost first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    table: dict[str, str] = settings["tool"]["setuptools"]["package-dir"]
    return {package.replace(".", "/"): folder for package, folder in sorted(table.items())}


def main(arguments: list[str]) -> int:
    """Run mypy; its exit status."""
    folders = mapped_folders()
    with tempfile.TemporaryDirectory() as tree:
        for installed, folder in folders.items():
            shutil.copytree(
                ROOT / folder,
                Path(tree) / installed,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        command = [sys.executable, "-m", "mypy", "--package", "graphprog"]
        command += ["--config-file", str(ROOT / "pyproject.toml")]
        command += ["--cache-dir", str(ROOT / ".mypy_cache"), *arguments]
        done = subprocess.run(command, cwd=tree, stdout=subprocess.PIPE, text=True, check=False)
    report = done.stdout
    for installed, folder in folders.items():
        report = report.replace(f"{installed}/", f"{folder}/")
    print(report, end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
