"""What a server serves: one model, and programs that are added, replaced and removed."""

from __future__ import annotations

import abc
import asyncio
import dataclasses
import datetime
import hashlib
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphprog.errors import GraphprogError
from graphprog.serve.batching import Batcher
from graphprog.serve.limits import Limits, RequestError
from graphprog.serve.metrics import Metrics

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


@dataclasses.dataclass(frozen=True)
class ProgramInfo:
    """A program that can be asked for.

    Attributes:
        name: its name.
        labels: of its classes; empty where it names none.
        sha256: of its file.
        bytes: size of its file.
        added: time of day (UTC) at which it was added or replaced.
    """

    name: str
    labels: tuple[str, ...]
    sha256: str
    bytes: int
    added: str


class Served(abc.ABC):
    """Base of served models.

    Args:
        name: of the model, by which clients ask for it without a program.
        limits: of requests.
        metrics: where batches are counted.
    """

    def __init__(self, name: str, limits: Limits, metrics: Metrics) -> None:
        self.name = require_name(name)
        self.limits = limits
        self.metrics = metrics
        self._infos: dict[str, ProgramInfo] = {}
        self._change = asyncio.Lock()
        self.batcher = Batcher(self.compute, limits, metrics)

    @property
    def programs(self) -> tuple[ProgramInfo, ...]:
        """The programs, in the order in which they were added."""
        return tuple(self._infos.values())

    def program(self, name: str) -> ProgramInfo:
        """Return what is known of a program.

        Raises:
            RequestError: there is none of that name (404).
        """
        if name not in self._infos:
            raise RequestError(404, f"there is no program {name!r:.210}", ["GET /v1/programs"])
        return self._infos[name]

    def add(self, name: str, path: Path) -> ProgramInfo:
        """Add the program of a file, or replace the one of that name.

        Raises:
            FileError: unreadable, or for another model or another kind of program.
            RequestError: a name that is not of letters, digits, ``_``, ``.`` and ``-``; or that of
                the model (400).
        """
        self._require_free(name)
        return self._install(name, path.read_bytes(), self.loaded(path))

    async def put(self, name: str, data: bytes) -> tuple[ProgramInfo, bool]:
        """Add a program from the bytes of its file; return it, and whether it is new.

        Requests that came before are computed with the program that they asked for.

        Raises:
            FileError: as :meth:`add`.
            RequestError: as :meth:`add`.
        """
        self._require_free(name)
        async with self._change:
            loaded = await asyncio.to_thread(self._loaded_from, name, data)
            new = name not in self._infos
            return self._install(name, data, loaded), new

    def remove(self, name: str) -> None:
        """Remove a program.

        Raises:
            RequestError: there is none of that name (404).
        """
        self.program(name)
        del self._infos[name]
        self.metrics.programs.set(len(self._infos))
        self.uninstall(name)

    def _require_free(self, name: str) -> None:
        if require_name(name) == self.name:
            raise RequestError(400, f"{name!r} is the name of the model", ["choose another name"])

    def _loaded_from(self, name: str, data: bytes) -> Any:
        with tempfile.TemporaryDirectory(prefix="graphprog-") as folder:
            path = Path(folder) / f"{name}.safetensors"
            path.write_bytes(data)
            try:
                return self.loaded(path)
            except GraphprogError as error:
                error.reword(lambda text: text.replace(str(path), f"program {name}"))
                raise

    def _install(self, name: str, data: bytes, loaded: Any) -> ProgramInfo:
        labels = self.install(name, loaded)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        info = ProgramInfo(name, tuple(labels), hashlib.sha256(data).hexdigest(), len(data), now)
        self._infos[name] = info
        self.metrics.programs.set(len(self._infos))
        return info

    @abc.abstractmethod
    def loaded(self, path: Path) -> Any:
        """Read and check the file of a program, in a thread."""

    @abc.abstractmethod
    def install(self, name: str, loaded: Any) -> Sequence[str]:
        """Put what :meth:`loaded` returned in place; return its labels."""

    @abc.abstractmethod
    def uninstall(self, name: str) -> None:
        """Remove a program."""

    @abc.abstractmethod
    def compute(self, jobs: Sequence[Any]) -> Sequence[Any]:
        """Compute jobs of one key together, in the thread that computes."""


def require_name(name: str) -> str:
    """Return a name that can be a part of a path.

    Raises:
        RequestError: it has other characters than letters, digits, ``_``, ``.`` and ``-`` (400).
    """
    if not _NAME.fullmatch(name):
        raise RequestError(
            400,
            f"{name!r:.210} is not a name",
            ["use up to 200 letters, digits, '_', '.' and '-', the first not '.' or '-'"],
        )
    return name
