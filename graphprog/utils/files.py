"""Atomic writing of files: readers see the whole old file or the whole new one."""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from graphprog.errors import FileError
from graphprog.utils.temporary import temporary_beside

Result = TypeVar("Result")


def require_path(path: object) -> None:
    """Refuse what is not the path of a file.

    Raises:
        FileError: it is neither a string nor a path; shows it.
    """
    if not isinstance(path, str | os.PathLike):
        raise FileError(
            f"a path is needed, not {path!r:.60}", ['give the path of a file: "task.safetensors"']
        )


def atomic_write(path: str | os.PathLike[str], writer: Callable[[Path], object]) -> Path:
    """Write a file atomically.

    The writer fills a temporary file in the same folder, which is flushed to the disk and then
    renamed to ``path``. An interruption leaves the old file unchanged; a killed process leaves
    a temporary file (``.<stem>.<random>.tmp<suffix>``), which the next write to the folder removes.
    A link is followed, so the file that it
    points to is replaced. The permissions of an existing file are kept.

    Args:
        path: the file to write; its folder must exist.
        writer: called with the path of the temporary file, which exists, is empty, and has the
            suffix of ``path``. Its own exceptions other than ``OSError`` pass through.

    Returns:
        The path of the written file, with links resolved.

    Raises:
        FileError: the path cannot be written, or writing failed.
    """
    require_path(path)
    try:
        target = Path(os.path.realpath(path))
        old_mode = _mode_of(target)
        with temporary_beside(target) as temporary:
            writer(temporary)
            _flush(temporary)
            if old_mode is not None:
                temporary.chmod(old_mode)
            os.replace(temporary, target)
        _flush_folder(target.parent)
    except (OSError, ValueError) as error:
        raise FileError(
            f"{os.fspath(path)}: cannot be written: {reason_of(error)}",
            ["check the folder, its permissions and the free space", "write to another folder"],
        ) from error
    return target


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; a pipe or device, which may never end, is not waited for.

    Raises:
        FileError: it is not a regular file, or cannot be opened.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        file = os.fdopen(os.open(path, flags), "rb")
    except (OSError, ValueError) as error:
        raise FileError(
            f"cannot be read: {reason_of(error)}", ["check the path and permissions"]
        ) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileError("not a regular file", ["give the path of a file, not of a pipe or device"])
    return file


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """Read a whole regular file of at most ``most`` bytes; see :func:`open_regular`.

    Raises:
        FileError: it is not a regular file, is larger, or cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise FileError(f"larger than the {most >> 20} MiB such a file may have")
        try:
            return file.read(size + 1)  # the extra byte shows that a file is growing
        except OSError as error:
            raise FileError(f"cannot be read: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """Return what the operating system says of an error, or what Python does."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder if it is not there, and check that files can be written into it.

    Raises:
        FileError: they cannot.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        place = os.fspath(folder)
        raise FileError(f"{place}: cannot be created or written: {reason_of(error)}") from error


def proved_write(path: str | os.PathLike[str], writer: Callable[[Path], Result]) -> Result:
    """Write a file atomically, and return what the writer says of it; see :func:`atomic_write`.

    Raises:
        FileError: as :func:`atomic_write`.
    """
    results: list[Result] = []
    atomic_write(path, lambda temporary: results.append(writer(temporary)))
    return results[0]


def _mode_of(target: Path) -> int | None:
    """Return the permission bits of the file to replace, or None if there is none."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise FileError(
            f"{target}: cannot be written: it exists and is not a regular file",
            ["give the path of a file, not of a folder or device"],
        )
    return stat.S_IMODE(status.st_mode)


def _flush(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open a folder, and needs no flush
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush folders; the rename is already done.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def cache_folder() -> Path:
    """Return ``GRAPHPROG_CACHE``, or the user's folder of caches for graphprog."""
    if own := os.environ.get("GRAPHPROG_CACHE"):
        return Path(own)
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "graphprog"
