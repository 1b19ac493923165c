"""Copies of the checkout, interpreters that have the dependencies but not graphprog, full disks."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def source_modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of graphprog by dotted name -> its file in the checkout, mapping applied."""
    found = {}
    for package, folder in SETTINGS["tool"]["setuptools"]["package-dir"].items():
        for file in (root / folder).rglob("*.py"):
            parts = file.relative_to(root / folder).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            found[".".join((package, *parts))] = file
    return found


def copy_checkout(target: Path) -> Path:
    """Copy what a fresh clone has, as far as installing and testing need it."""
    target.mkdir()
    folders = {*SETTINGS["tool"]["setuptools"]["package-dir"].values(), "tests", "tools"}
    for folder in folders:
        shutil.copytree(
            ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy2(file, target)
    return target


def bare_environment(target: Path) -> Path:
    """An environment that borrows the dependencies of this one; returns its folder of commands.

    An editable graphprog in the borrowed folder stays invisible: interpreters read the ``.pth``
    files, which editable installs live by, only of their own site-packages.
    """
    venv.EnvBuilder(symlinks=os.name != "nt", with_pip=False).create(target)
    base = {"base": str(target), "platbase": str(target)}
    packages = Path(sysconfig.get_path("purelib", "venv", base))
    borrowed = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (packages / "borrowed.pth").write_text("\n".join(borrowed), encoding="utf-8")
    return Path(sysconfig.get_path("scripts", "venv", base))


def run(command: list[str | Path], cwd: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run a command with exactly ``path`` as PYTHONPATH and no trace of the running pytest."""
    hidden = ("PYTHON", "PYTEST", "COV_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    kept["PYTHONPATH"] = os.pathsep.join(map(str, path))
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )


def run_ok(command: list[str | Path], cwd: Path, *path: Path) -> str:
    """Like :func:`run`; the command must succeed, and what it printed is returned."""
    done = run(command, cwd, *path)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def python_of(commands: Path) -> Path:
    """The interpreter in a folder of commands."""
    return commands / Path(sys.executable).name


@contextlib.contextmanager
def full_disk(after: int) -> Iterator[None]:
    """Let every write beyond ``after`` bytes of a file fail inside the block."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
