"""Where kept values are: in memory, or in a file that is mapped into memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

_SHARE = 0.5
_UNKNOWN = 2_000_000_000
_LIMIT, _USED = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))


class InMemory:
    """Rows in memory."""

    def __init__(self, rows: int, like: torch.Tensor) -> None:
        self._values = torch.empty((rows, *like.shape[1:]), dtype=like.dtype)
        self._done = 0

    def add(self, values: torch.Tensor) -> None:
        """Take the next rows [n, ...]."""
        self._values[self._done : self._done + len(values)] = values
        self._done += len(values)

    def tensor(self) -> torch.Tensor:
        """Return all rows [N, ...]."""
        return self._values


class OnDisk:
    """Rows in a file."""

    def __init__(self, path: Path, rows: int, like: torch.Tensor) -> None:
        self._path = path
        self._shape = (rows, *like.shape[1:])
        self._dtype = like.dtype
        self._file = path.open("wb")

    def add(self, values: torch.Tensor) -> None:
        """Take the next rows [n, ...].

        Raises:
            OSError: the disk is full.
        """
        flat = values.detach().cpu().contiguous().view(-1).view(torch.uint8)
        self._file.write(flat.numpy().data)

    def tensor(self) -> torch.Tensor:
        """Return all rows [N, ...]; they are read from the file when they are used."""
        self._file.close()
        count = torch.Size(self._shape).numel()
        flat = torch.from_file(str(self._path), shared=True, size=count, dtype=self._dtype)
        return flat.view(self._shape)


def bytes_of_rows(rows: int, values: Sequence[torch.Tensor]) -> int:
    """Return the bytes of as many rows as there are in a data set, from those of a batch."""
    return sum(rows * one[0].numel() * one.element_size() for one in values)


def disk_budget(folder: Path) -> int:
    """Return half of what is free where a folder is, in bytes."""
    return int(_SHARE * shutil.disk_usage(folder).free)


def memory_budget() -> int:
    """Return half of the memory that is free, in bytes."""
    free = _UNKNOWN
    if "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if _LIMIT.exists() and _USED.exists() and (limit := _LIMIT.read_text().strip()).isdecimal():
        free = min(free, int(limit) - int(_USED.read_text()))
    return max(0, int(_SHARE * free))
