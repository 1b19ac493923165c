"""Recordings of a data set: shards of tensors in a folder, read row by row."""

from __future__ import annotations

import bisect
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch.utils.data import Dataset

from graphprog.errors import DataError, FileError
from graphprog.ir.fingerprint import WeightHash
from graphprog.ir.graph import Graph
from graphprog.utils.files import atomic_write
from graphprog.utils.json import parse_json, render_json
from graphprog.utils.tensor_files import write_tensors

INDEX = "index.json"
FORMAT = "graphprog recording"
SHARD_BYTES = 64 * 2**20
"""A shard is written as soon as it has as many bytes; so many are in memory at a time."""

_SHARD = re.compile(r"\d{6}\.safetensors")


class Recording(Mapping[str, "RecordedValue"]):
    """Values at interfaces over a data set, read from a folder that :func:`record` wrote.

    A mapping from the name of the interface to its values, which are read from the disk when they
    are indexed.

    Args:
        path: the folder.

    Raises:
        FileError: there is no recording, or it is damaged.

    Example:
        >>> data = (images, labels)
        >>> found = gp.record(graph, data, at="features", reduce="norm", to="activations")
        >>> assert torch.equal(gp.Recording("activations")["labels"].tensor(), labels)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.document = _document(self.path)
        self.rows: int = sum(shard["rows"] for shard in self.document["shards"])

    @property
    def complete(self) -> bool:
        """Whether the recording was finished."""
        return bool(self.document["complete"])

    @property
    def keys_of_interfaces(self) -> dict[str, str]:
        """Key of the interface, by name."""
        return dict(self.document["places"])

    def require(self, graph: Graph) -> None:
        """Check that the recording was made with a graph.

        Raises:
            FileError: it was made with another one, or with other weights.
        """
        if self.document["source"] != _source(graph):
            raise FileError(
                f"{self.path}: was recorded with another graph or other weights",
                ["record again, to another folder"],
            )

    def __getitem__(self, name: str) -> RecordedValue:
        if name not in self.document["values"]:
            raise KeyError(name)
        return RecordedValue(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.document["values"])

    def __len__(self) -> int:
        return len(self.document["values"])

    def __repr__(self) -> str:
        values = ", ".join(f"{name} {value.shape}" for name, value in self.items())
        return f"<Recording {self.path}: {self.rows} rows, {values}>"


class RecordedValue(Dataset[torch.Tensor]):
    """The value at one interface for every row of a recording; a map-style data set.

    Args:
        recording: the recording.
        name: name of the interface.

    Example:
        >>> found = gp.record(graph, images, at="features", to="activations")
        >>> value = found["features"]
        >>> len(value), value[0].shape, value[1:3].shape
        (4, torch.Size([8]), torch.Size([2, 8]))
    """

    def __init__(self, recording: Recording, name: str) -> None:
        self.name = name
        self._recording = recording
        shards = recording.document["shards"]
        self._files = [recording.path / shard["file"] for shard in shards]
        ends = [0]
        for shard in shards:
            ends.append(ends[-1] + shard["rows"])
        self._ends = ends

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Rows and sizes; None for a size that differs between shards."""
        shapes = [shard["shapes"][self.name] for shard in self._recording.document["shards"]]
        sizes = [set(column) for column in zip(*shapes, strict=True)]
        return (len(self), *(size.pop() if len(size) == 1 else None for size in sizes))

    def __len__(self) -> int:
        return self._recording.rows

    def __getitem__(self, index: int | slice) -> torch.Tensor:
        """Read a row, or a range of rows.

        Raises:
            DataError: the rows of a range differ in shape.
            IndexError: there is no such row.
        """
        if isinstance(index, slice):
            numbers = range(len(self))[index]
            if numbers.step != 1:
                return torch.stack([self[number] for number in numbers])
            return self._read(numbers.start, numbers.stop)
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        row = index % len(self)
        return self._read(row, row + 1)[0]

    def tensor(self) -> torch.Tensor:
        """Read all rows.

        Raises:
            DataError: they differ in shape.
        """
        return self._read(0, len(self))

    def _read(self, start: int, stop: int) -> torch.Tensor:
        parts = []
        first = bisect.bisect_right(self._ends, start) - 1
        for number in range(first, len(self._files)):
            begin, end = self._ends[number], self._ends[number + 1]
            if begin >= stop:
                break
            parts.append(self._shard(number, max(start - begin, 0), min(stop, end) - begin))
        if len({part.shape[1:] for part in parts}) > 1:
            raise DataError(
                f"rows of {self.name!r} differ in shape between batches",
                ["read them one by one", 'record with positions="last" or reduce="mean"'],
            )
        return torch.cat(parts)

    def _shard(self, number: int, start: int, stop: int) -> torch.Tensor:
        path = self._files[number]
        try:
            with safetensors.safe_open(os.fspath(path), "pt") as file:
                found: torch.Tensor = file.get_slice(self.name)[start:stop]
        except (safetensors.SafetensorError, OSError) as error:
            raise FileError(f"{path}: cannot be read: {error}", ["record again"]) from error
        return found


class RecordingWriter:
    """Writes a recording; goes on with one that was interrupted.

    Args:
        path: the folder; it is made if needed.
        graph: the graph that is run.
        places: key of each interface, by name.
        selection: text of what is kept of each value.

    Raises:
        FileError: the folder holds a recording of something else, or cannot be made.
    """

    def __init__(
        self, path: str | os.PathLike[str], graph: Graph, places: Mapping[str, str], selection: str
    ) -> None:
        self.path = Path(path)
        self.document: dict[str, Any] = {
            "format": FORMAT,
            "version": 1,
            "source": _source(graph),
            "places": dict(places),
            "selection": selection,
            "values": {},
            "shards": [],
            "complete": False,
        }
        self._waiting: list[dict[str, torch.Tensor]] = []
        self._bytes = 0
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"{self.path}: cannot be made: {error.strerror}") from error
        if (self.path / INDEX).exists():
            self._go_on()
        elif any(self.path.iterdir()):
            raise FileError(
                f"{self.path}: is not empty, and holds no recording", ["give a new folder"]
            )
        else:  # so that a run that is killed before its first shard goes on, too
            self._write_index()

    def _go_on(self) -> None:
        found = _document(self.path)
        if not found["shards"]:
            return
        for name in ("source", "places", "selection"):
            if found[name] != self.document[name]:
                raise FileError(
                    f"{self.path}: holds a recording with another {name}: {found[name]!r:.200}",
                    ["give another folder"],
                )
        self.document = found

    @property
    def complete(self) -> bool:
        """Whether the recording was finished before."""
        return bool(self.document["complete"])

    @property
    def rows(self) -> int:
        """Number of rows in the folder."""
        return sum(int(shard["rows"]) for shard in self.document["shards"])

    def add(self, values: Mapping[str, torch.Tensor], rows: int) -> None:
        """Keep the values of a batch; writes a shard when there are enough.

        Raises:
            FileError: the shard cannot be written, for example because the disk is full.
        """
        shapes = {name: value.shape[1:] for name, value in values.items()}
        before = self._waiting[-1] if self._waiting else None
        if before is not None and shapes != {name: v.shape[1:] for name, v in before.items()}:
            self._write()
        self._waiting.append({name: value.contiguous() for name, value in values.items()})
        self._bytes += sum(value.nbytes for value in values.values())
        if self._bytes >= SHARD_BYTES:
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        tensors = {
            name: torch.cat([part[name] for part in self._waiting]) for name in self._waiting[0]
        }
        file = f"{len(self.document['shards']):06d}.safetensors"
        write_tensors(self.path / file, tensors)
        self.document["values"] = {
            name: str(value.dtype).removeprefix("torch.") for name, value in tensors.items()
        }
        self.document["shards"].append(
            {
                "file": file,
                "rows": len(next(iter(tensors.values()))),
                "shapes": {name: list(value.shape[1:]) for name, value in tensors.items()},
            }
        )
        self._waiting, self._bytes = [], 0
        self._write_index()

    def _write_index(self) -> None:
        text = render_json(self.document, "recording")
        atomic_write(self.path / INDEX, lambda path: path.write_text(text, encoding="utf-8"))

    def finish(self) -> Recording:
        """Write what is left, mark the recording as complete, and open it."""
        if not self.complete:
            self._write()
            self.document["complete"] = True
            self._write_index()
        return Recording(self.path)


def _source(graph: Graph) -> dict[str, str]:
    """Return what identifies the graph: its text, weights and program as they are now."""
    return {
        "text": graph.fingerprint.text,
        "weights": graph.weight_hash(),
        "program": WeightHash()(graph.weights.program),
    }


def _document(folder: Path) -> dict[str, Any]:
    """Read and check the index of a recording."""
    path = folder / INDEX
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(
            f"{path}: cannot be read: {error}", ['make a recording: gp.record(..., to="folder")']
        ) from error
    found = parse_json(text, str(path))
    if not isinstance(found, dict) or found.get("format") != FORMAT or found.get("version") != 1:
        raise FileError(f"{path}: is not the index of a recording of version 1")
    if not _is_sound(found):
        raise FileError(f"{path}: is damaged", ["record again, to another folder"])
    return found


def _is_sound(document: dict[str, Any]) -> bool:
    """Whether an index has the fields that it must have, and names files of the folder only."""
    kinds = {"source": dict, "places": dict, "selection": str, "values": dict, "shards": list}
    if not all(isinstance(document.get(name), kind) for name, kind in kinds.items()):
        return False
    return isinstance(document.get("complete"), bool) and all(
        isinstance(shard, dict)
        and _SHARD.fullmatch(str(shard.get("file"))) is not None
        and isinstance(shard.get("rows"), int)
        and shard["rows"] > 0
        and isinstance(shard.get("shapes"), dict)
        and set(shard["shapes"]) == set(document["values"])
        for shard in document["shards"]
    )
