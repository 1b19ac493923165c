"""A cache of loaded programs: if memory is limited, the least recently used are on disk."""

from __future__ import annotations

import abc
import dataclasses
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from graphprog.backends.onnx_model.program_files import LoadedProgram
from graphprog.errors import BackendError, DataError, FileError

Array = np.ndarray | torch.Tensor
Program = LoadedProgram | Mapping[str, Array] | str | os.PathLike[str]
"""A loaded program, tensors by name, the name of a program that was added, or a saved file."""


class ProgramCache:
    """Loaded programs by name; safe for several threads.

    Args:
        limit: bytes of tensors to keep in memory, always with the last one used; None for all.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, LoadedProgram] = OrderedDict()
        self._stored: dict[str, tuple[Path, LoadedProgram]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0
        self._bytes = 0
        self._names: dict[str, None] = {}
        self._lock = threading.RLock()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all programs, in order of insertion."""
        with self._lock:
            return tuple(self._names)

    @property
    def kept(self) -> int:
        """Bytes of tensors in memory."""
        return self._bytes

    def put(self, name: str, program: LoadedProgram) -> None:
        """Store a program, and replace one of that name.

        Raises:
            FileError: another program must be moved to disk, but there is no space.
        """
        with self._lock:
            self.drop(name)
            self._names[name] = None
            self._keep(name, program)

    def get(self, name: str) -> LoadedProgram | None:
        """Return the program with a name, and mark it as used last; None if there is none.

        Raises:
            FileError: it cannot be read from disk, or another cannot be written.
        """
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
            if name not in self._stored:
                return None
            path, empty = self._stored[name]
            try:
                arrays = safetensors.numpy.load_file(path)
                program = dataclasses.replace(empty, tensors=arrays)
            except Exception as error:
                raise FileError(f"program {name!r}, put aside at {path}, is gone: {error}") from (
                    error
                )
            self._keep(name, program)
            return program

    def drop(self, name: str) -> bool:
        """Remove a program; return whether there was one."""
        with self._lock:
            if name not in self._names:
                return False
            del self._names[name]
            if name in self._kept:
                self._bytes -= self._kept.pop(name).nbytes
            if name in self._stored:
                self._stored.pop(name)[0].unlink(missing_ok=True)
            return True

    def _keep(self, name: str, program: LoadedProgram) -> None:
        self._kept[name] = program
        self._bytes += program.nbytes
        while self._limit is not None and self._bytes > self._limit and len(self._kept) > 1:
            oldest = next(iter(self._kept))
            self._put_aside(oldest, self._kept[oldest])
            self._bytes -= self._kept.pop(oldest).nbytes

    def _put_aside(self, name: str, program: LoadedProgram) -> None:
        if name in self._stored:  # it was read from disk, and has not changed
            return
        try:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="graphprog-")
            self._files += 1
            path = Path(self._folder.name) / f"{self._files}.safetensors"
            arrays = {key: np.ascontiguousarray(one) for key, one in program.tensors.items()}
            safetensors.numpy.save_file(arrays, path)
        except Exception as error:
            raise FileError(
                f"program {name!r} cannot be put aside: {error}",
                ["use memory=None to keep all programs in memory", "set TMPDIR to another folder"],
            ) from error
        self._stored[name] = path, dataclasses.replace(program, tensors={})


def _require_program(program: object) -> None:
    if not isinstance(program, str | os.PathLike | LoadedProgram | Mapping):
        raise BackendError(
            f"a program is a name, a file, or tensors by name, not {program!r:.60}",
            [
                'add("digits", "digits.safetensors"), then program="digits"',
                "gp.save(task, path), then program=path",
            ],
        )


def best_of(names: Sequence[tuple[str, ...]], logits: np.ndarray) -> list[str]:
    """Return the name of each row's class with the largest logit [B, C]."""
    return [own[number] for own, number in zip(names, logits.argmax(1), strict=True)]


def probabilities_of(
    names: Sequence[tuple[str, ...]], logits: np.ndarray
) -> list[dict[str, float]]:
    """Return the softmax of each row of logits [B, C] by name, the most probable first."""
    found = []
    for own, row in zip(names, logits.astype(np.float64), strict=True):
        weights = np.exp(row[: len(own)] - row[: len(own)].max())
        shares = weights / weights.sum()
        order = np.argsort(-shares, kind="stable")
        found.append({own[number]: float(shares[number]) for number in order})
    return found


class Programs(abc.ABC):
    """Base of sessions that serve programs added by name."""

    def __init__(self, memory: int | None) -> None:
        self._cache = ProgramCache(memory)

    @abc.abstractmethod
    def checked(self, program: Program) -> LoadedProgram:
        """Load a program, and check that it can run here.

        Raises:
            BackendError: tensors that do not fit.
            FileError: the file is unreadable, or belongs to another source or spec.
        """

    def add(self, name: str, program: Program) -> None:
        """Add a program under a name, for ``run(..., program=name)``; replaces one of that name.

        Args:
            name: any text that is not empty.
            program: a saved file, a loaded program, or tensors by name.

        Raises:
            BackendError: no name; tensors that do not fit.
            FileError: the file is unreadable, or belongs to another source or spec.
        """
        if not name:
            raise BackendError(f"{name!r} cannot be the name of a program", ['add("digits", ...)'])
        _require_program(program)
        self._cache.put(name, self.checked(program))

    def remove(self, name: str) -> None:
        """Remove a program that was added.

        Raises:
            BackendError: there is no program of that name; lists the names.
        """
        if not self._cache.drop(name):
            raise self._unknown(name)

    def resolve(self, program: Any) -> LoadedProgram:
        """Return the program given by name, by file, or itself.

        Raises:
            BackendError: neither a name nor a file, or tensors that do not fit.
            FileError: the file is unreadable, or belongs to another source or spec.
        """
        _require_program(program)
        if isinstance(program, str):
            if (found := self._cache.get(program)) is not None:
                return found
            if not os.path.exists(program):
                raise self._unknown(program)
        return self.checked(program)

    def resolve_rows(self, programs: Sequence[Any]) -> list[LoadedProgram]:
        """Return the programs of rows; equal ones are one object.

        Raises:
            DataError: there are none; otherwise as :meth:`resolve`.
        """
        if not programs:
            raise DataError("the list of programs is empty", ["pass one program per row"])
        texts = {one: self.resolve(one) for one in programs if isinstance(one, str | os.PathLike)}
        others = {id(one): one for one in programs if not isinstance(one, str | os.PathLike)}
        found = {number: self.resolve(one) for number, one in others.items()}
        return [
            texts[one] if isinstance(one, str | os.PathLike) else found[id(one)] for one in programs
        ]

    def _unknown(self, name: str) -> BackendError:
        names = ", ".join(map(repr, self._cache.names))
        return BackendError(
            f"there is no program {name!r} and no file of that name; "
            f"{f'there are {names}' if names else 'none was added yet'}",
            [f'add({name!r}, "program.safetensors")'],
        )

    def labels_of(
        self,
        program: LoadedProgram | Sequence[LoadedProgram] | None,
        count: int,
        own: tuple[str, ...] = (),
    ) -> Sequence[tuple[str, ...]]:
        """Return the names of the classes for every row.

        Args:
            program: of all rows, or of each; None is that of the file.
            count: number of rows.
            own: labels of the file.

        Raises:
            BackendError: a program does not name its classes.
        """
        rows = program if isinstance(program, Sequence) else [program] * count
        labels = [own if one is None else one.labels for one in rows]
        if not all(labels):
            raise BackendError(
                "the program does not name its classes",
                ["use Contract(labels=(...)) in the program", "use run(...).argmax(1) for numbers"],
            )
        return labels

    def list(self) -> tuple[str, ...]:
        """Return the names of the added programs, in order."""
        return self._cache.names
