"""Temporary files beside a file to write: locked while in use, and removed if their owner died."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

fcntl: Any = None
with contextlib.suppress(ImportError):  # on Windows, what a killed process leaves stays there
    fcntl = importlib.import_module("fcntl")

_OURS = re.compile(r"\..+\.[0-9a-f]{12}\.tmp(\.\w+)?", re.DOTALL)


@contextlib.contextmanager
def temporary_beside(target: Path) -> Iterator[Path]:
    """Give an empty file in the folder of ``target``; it is gone after the block unless renamed.

    Temporary files of processes that were killed are removed from the folder first.

    Raises:
        OSError: the folder cannot be written.
    """
    _remove_abandoned(target.parent)
    temporary, descriptor = _created(target)
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _created(target: Path) -> tuple[Path, int]:
    """Create a locked file; another process may remove it in the moment before it is locked."""
    while True:
        path = target.with_name(f".{target.stem}.{secrets.token_hex(6)}.tmp{target.suffix}")
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        _lock(descriptor)
        if path.exists():
            return path, descriptor
        os.close(descriptor)


def _lock(descriptor: int, wait: bool = True) -> bool:
    """Lock a file; return whether it is locked. Locks end with the process that holds them."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # in use, or a file system without locks
        return False
    return True


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files that no process has locked."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(entry.path)


def _remove_if_abandoned(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        if _lock(descriptor, wait=False):
            os.unlink(path)
    finally:
        os.close(descriptor)
