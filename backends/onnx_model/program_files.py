"""Saved programs, read for a deployed file: made for its source, and of the kind it holds."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from graphprog.alignments.base import Alignment
from graphprog.alignments.label_mapping.table import check_mapping
from graphprog.backends.onnx_model.metadata import Deployed, fixed_tensors, type_of
from graphprog.errors import BackendError, FileError
from graphprog.io.artifact import read, within
from graphprog.io.saving import check_source
from graphprog.spec.registry import from_json


@dataclasses.dataclass(frozen=True)
class LoadedProgram:
    """The tensors of a saved program, ready for a session.

    Attributes:
        tensors: by name.
        labels: of its classes; empty where it names none.
        slot: the kind of program it is, where a folder serves several.
    """

    tensors: Mapping[str, np.ndarray]
    labels: tuple[str, ...] = ()
    slot: str = ""

    @property
    def nbytes(self) -> int:
        """Size of the tensors."""
        return sum(array.nbytes for array in self.tensors.values())


ROW = "program.row"
CLASSES = "program.classes"


def load_program(path: str | os.PathLike[str], own: Deployed, where: str) -> LoadedProgram:
    """Read a saved program for the file ``where``, of which the document is given.

    Raises:
        FileError: unreadable; for another source; or of another spec than the file's, so that
            the graph in the file is not that program's.
    """
    return dataclasses.replace(load_for(path, {where: own}), slot="")


def load_for(path: str | os.PathLike[str], documents: Mapping[str, Deployed]) -> LoadedProgram:
    """Read a saved program for the first of some files that it fits.

    Args:
        path: of the program.
        documents: of the files, which are of one source, by the name of the slot.

    Raises:
        FileError: unreadable; for another source; or it fits none of the files.
    """
    tensors, saved = read(path)
    with within(path):
        first = next(iter(documents.values()))
        check_source(saved.get("source"), first.source_name, first.source)
        labels = saved.get("labels")
        names = tuple(map(str, labels)) if isinstance(labels, list) else ()
        align = _alignment(saved.get("program"), tensors)
        if align is not None:
            check_mapping(align, tensors)
        for slot, own in documents.items():
            if _fits(tensors, saved.get("program"), own):
                arrays = {name: tensors[name].numpy() for name in own.state}
                return LoadedProgram(arrays, names, slot)
        raise FileError(
            f"its program is not of the kind that {' or '.join(documents)} was exported with",
            ["export a task of that program", "compare the programs: print(task.spec)"],
        )


def _alignment(program: Any, tensors: Mapping[str, torch.Tensor]) -> Alignment | None:
    found = program.get("align") if isinstance(program, dict) else None
    align = from_json(found, tensors)
    return align if isinstance(align, Alignment) else None


def _fits(tensors: Mapping[str, torch.Tensor], program: Any, own: Deployed) -> bool:
    """Whether a file's graph is that of a program with these tensors."""
    state = {name: type_of(tensors[name]) for name in own.state if name in tensors}
    fixed = {name: tensor for name, tensor in tensors.items() if name not in own.state}
    fits = (
        state.keys() == own.state.keys()
        and all(same_type(state[name], own.state[name], own.per_row.get(name)) for name in state)
        and in_graph(program, own.per_row) == in_graph(own.program, own.per_row)
        and fixed_tensors(fixed) == own.fixed
    )
    if fits:
        require_one_count(state, own.per_row)
    return fits


def same_type(found: str, wanted: str | None, axis: int | None) -> bool:
    """Whether a tensor has the type that a file asks for.

    Args:
        found: such as ``float32[10,768]``.
        wanted: likewise; None fits nothing.
        axis: of which the length may be another: that of the classes, or None.
    """
    return (
        wanted is not None and without_classes(found, axis)[0] == (without_classes(wanted, axis)[0])
    )


def without_classes(text: str, axis: int | None) -> tuple[str, str]:
    """A type without its number of classes, and that number; empty where it has none."""
    dtype, _, sizes = text.removesuffix("]").partition("[")
    parts = sizes.split(",")
    if axis is None or axis >= len(parts):
        return text, ""
    count, parts[axis] = parts[axis], "classes"
    return f"{dtype}[{','.join(parts)}]", count


def require_one_count(types: Mapping[str, str], axes: Mapping[str, int | None]) -> None:
    """Refuse tensors of one program with different numbers of classes.

    Raises:
        BackendError: says which.
    """
    counts = {name: without_classes(text, axes.get(name))[1] for name, text in types.items()}
    if len(set(counts.values()) - {""}) > 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        raise BackendError(f"tensors of one program have different numbers of classes: {found}")


def in_graph(program: Any, axes: Mapping[str, int | None]) -> Any:
    """A program's spec without what no graph depends on.

    These are names of classes, and text around queries, which is not in the graph, or is stored in
    it as numbers of another part. In a stack with an axis of classes, their number is another.
    """
    if not isinstance(program, dict):
        return program
    contract = program.get("contract", {"kind": "contract"})
    if isinstance(contract, dict):
        contract = {name: value for name, value in contract.items() if name != "labels"}
    parts = program.get("manipulations", [])
    if isinstance(parts, list):
        parts = [part for part in parts if not _is_outside(part)]
    align = program.get("align")
    if isinstance(align, dict) and any(axis is not None for axis in axes.values()):
        align = {name: value for name, value in align.items() if name != "classes"}
    return {**program, "contract": contract, "manipulations": parts, "align": align}


def _is_outside(part: Any) -> bool:
    return isinstance(part, dict) and part.get("kept") in ("text", "stored")
