"""Summary of a program's file, without its source model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any

from graphprog.compiler.program import Program
from graphprog.errors import FileError
from graphprog.io.artifact import read, within
from graphprog.io.limits import Limits
from graphprog.ir.interface import dtype_text
from graphprog.methods.coordinates import alignment, coordinates
from graphprog.spec.registry import from_json
from graphprog.utils.columns import columns


@dataclasses.dataclass(frozen=True)
class FileSummary:
    """What a program's file says; prints as a table.

    Attributes:
        program: the whole program as text.
        parts: the manipulations as text, by interface and name.
        coordinates: configuration, location and operator of each part in the survey, and the
            kind of the alignment.
        align: the alignment as text.
        contract: the contract as text.
        labels: names of the classes.
        tensors: types of the tensors by name, such as ``f32[10,192]``.
        parameters: number of values in them.
        source: name and fingerprint of the source model.
        training: key numbers of the training.
    """

    program: str
    parts: tuple[tuple[str, str], ...]
    coordinates: tuple[tuple[str, str], ...]
    align: str
    contract: str
    labels: tuple[str, ...]
    tensors: Mapping[str, str]
    parameters: int
    source: Mapping[str, Any]
    training: Mapping[str, Any]

    def __str__(self) -> str:
        shown = ", ".join(self.labels[:20]) + (", …" if len(self.labels) > 20 else "")
        rows = [
            *_titled("parts", (f"at {at}: {text}" for at, text in self.parts)),
            ("alignment", self.align),
            *_titled("coordinates", (f"{name}: {text}" for name, text in self.coordinates)),
            ("contract", self.contract),
            *([("labels", f"{len(self.labels)}: {shown}")] if self.labels else []),
            ("parameters", f"{self.parameters:,}"),
            *_titled("tensors", (f"{name}: {kind}" for name, kind in self.tensors.items())),
            *_titled("source", (f"{name}: {value}" for name, value in self.source.items())),
            *_titled("training", (f"{name}: {value}" for name, value in self.training.items())),
        ]
        return "\n".join(line.rstrip() for line in columns(rows))


def _titled(title: str, lines: Iterable[str]) -> list[tuple[str, str]]:
    return [("" if number else title, line) for number, line in enumerate(lines)]


def read_summary(path: str | os.PathLike[str]) -> FileSummary:
    """Read what a program's file says of itself.

    Raises:
        FileError: the file is missing, damaged, or holds no program.
    """
    tensors, document = read(path)
    with within(path):
        program = from_json(document.get("program"), tensors)
        if not isinstance(program, Program):
            raise FileError("the document holds no program")
        Limits().check(program, tensors)
    source, training = (document.get(name) for name in ("source", "training"))
    return FileSummary(
        program=str(program),
        parts=tuple((getattr(part, "at", "text"), str(part)) for part in program.manipulations),
        coordinates=(
            *(
                (getattr(part, "label", part.kind), str(coordinates(part)))
                for part in program.manipulations
            ),
            ("alignment", alignment(program.align)),
        ),
        align=str(program.align),
        contract=str(program.contract),
        labels=program.contract.labels,
        tensors={
            name: f"{dtype_text(one.dtype)}[{','.join(map(str, one.shape))}]"
            for name, one in sorted(tensors.items())
        },
        parameters=sum(one.numel() for one in tensors.values()),
        source=source if isinstance(source, Mapping) else {},
        training=training if isinstance(training, Mapping) else {},
    )
