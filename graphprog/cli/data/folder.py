"""Folders: one folder for each class."""

from __future__ import annotations

from pathlib import Path

from graphprog.cli.data.data_name import ARRAYS, AUDIO, IMAGES
from graphprog.cli.data.examples import Examples
from graphprog.errors import DataError

SUFFIXES = {
    **dict.fromkeys(IMAGES, "image"),
    **dict.fromkeys(AUDIO, "audio"),
    ".txt": "text",
    ".npy": "array",
}
"""Kinds of files by suffix."""


def read_folder(path: str) -> Examples:
    """List the files of a folder with a folder for each class; nothing is read.

    Raises:
        DataError: there are no such folders, or files of several kinds.
    """
    root = Path(path)
    classes = sorted(one.name for one in root.iterdir() if one.is_dir() and _shown(one))
    if not classes:
        raise DataError(
            f"{path}: has no folders of classes",
            ["put the files of each class into a folder with its name: flowers/rose/1.jpg"],
        )
    found = [
        (file, number) for number, name in enumerate(classes) for file in files_of(root / name)
    ]
    kinds = sorted({SUFFIXES[file.suffix.lower()] for file, _ in found})
    if len(kinds) > 1:
        raise DataError(f"{path}: holds files of several kinds: {', '.join(kinds)}")
    if not found:
        known = ", ".join(sorted((*IMAGES, *AUDIO, ".txt", *(ARRAYS - {".npz"}))))
        raise DataError(f"{path}: holds no file with one of the suffixes {known}")
    files = [file for file, _ in found]
    inputs = [read_text(file) for file in files] if kinds == ["text"] else files
    rows = [file.relative_to(root) for file in files]
    return Examples(kinds[0], inputs, [label for _, label in found], tuple(classes), path, rows)


def files_of(folder: Path) -> list[Path]:
    """Return the files of a folder, and of folders in it, whose suffix says what they are."""
    files = (one for one in folder.rglob("*") if _shown(one) and one.is_file())
    return sorted(one for one in files if one.suffix.lower() in SUFFIXES)


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8: {error}") from error


def _shown(path: Path) -> bool:
    return not path.name.startswith(".")
