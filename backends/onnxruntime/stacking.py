"""Tensors of several programs, stacked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from graphprog.backends.onnx_model.program_files import LoadedProgram
from graphprog.errors import DataError
from graphprog.ir.inputs import InputSpec, batch_axis, row_inputs


def stacked(
    programs: Sequence[LoadedProgram], axes: Mapping[str, int | None]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Stack the programs of rows.

    Args:
        programs: one per row.
        axes: for each tensor to stack, the axis of the classes, or None.

    Returns:
        Stacks [N, *S] by name, padded by zeros on the axis of the classes; the place of each row's
        program in them, int64 [rows]; how many classes each program has, int64 [N], 0 where none
        says.
    """
    places: dict[int, int] = {}
    different: list[LoadedProgram] = []
    for program in programs:
        if id(program) not in places:
            places[id(program)] = len(different)
            different.append(program)
    stacks = {
        name: _stacked([program.tensors[name] for program in different], axis)
        for name, axis in axes.items()
    }
    classes = [class_count(program, axes) for program in different]
    rows = np.array([places[id(program)] for program in programs], dtype=np.int64)
    return stacks, rows, np.array(classes, dtype=np.int64)


def class_count(program: LoadedProgram, axes: Mapping[str, int | None]) -> int:
    """Return the number of classes of a program; 0 where no tensor says it.

    Args:
        program: with the tensors.
        axes: as for :func:`stacked`.
    """
    for name, axis in axes.items():
        if axis is not None:
            return int(program.tensors[name].shape[axis])
    return 0


def _stacked(arrays: Sequence[np.ndarray], axis: int | None) -> np.ndarray:
    if len(arrays) == 1:
        return arrays[0][None]
    if axis is None or len({array.shape[axis] for array in arrays}) == 1:
        return np.stack(arrays)
    shape = [len(arrays), *arrays[0].shape]
    shape[axis + 1] = max(array.shape[axis] for array in arrays)
    stack = np.zeros(shape, arrays[0].dtype)
    for row, array in zip(stack, arrays, strict=True):
        row[tuple(slice(size) for size in array.shape)] = array
    return stack


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of several results, one after the other; where some have fewer classes, -inf fills up.

    Args:
        parts: [B_i, ...], alike save for the number of rows and, of logits [B, K], of classes.
    """
    widths = {part.shape[1] for part in parts if part.ndim == 2}
    if len(widths) < 2:
        return np.concatenate(parts)
    found = np.full((sum(map(len, parts)), max(widths)), -np.inf, dtype=parts[0].dtype)
    start = 0
    for part in parts:
        found[start : start + len(part), : part.shape[1]] = part
        start += len(part)
    return found


def by_group(
    groups: Sequence[Hashable], run: Callable[[Sequence[int]], list[np.ndarray]]
) -> list[np.ndarray]:
    """Outputs of a batch of which some rows are computed together, and then others.

    Args:
        groups: the key of each row.
        run: outputs for rows of one group, by their numbers in the batch.
    """
    rows: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    if len(rows) == 1:
        return run(range(len(groups)))
    found = [run(some) for some in rows.values()]
    order = np.argsort([row for some in rows.values() for row in some])
    return [joined(parts)[order] for parts in zip(*found, strict=True)]


def some_rows(
    specs: Sequence[InputSpec], inputs: Sequence[Any], rows: Sequence[int], count: int
) -> list[Any]:
    """The inputs of some rows; those without an axis of rows as they are.

    Args:
        specs: of the inputs.
        inputs: of all rows.
        rows: which to take.
        count: how many there should be in all.

    Raises:
        DataError: there are others; another number of inputs; or no input has rows.
    """
    if len(inputs) != len(specs):
        names = ", ".join(map(str, specs))
        raise DataError(f"the model takes {names}; given were {len(inputs)} inputs")
    if batch_axis(specs) is None:
        raise DataError("the model has no axis of rows that could have their own programs")
    taken: list[Any] = []
    for varies, value in zip(row_inputs(specs), inputs, strict=True):
        if varies:
            require_as_many(count, len(value))
        taken.append(value[list(rows)] if varies else value)
    return taken


def require_as_many(programs: int, rows: int) -> None:
    """Refuse another number of programs than of rows.

    Raises:
        DataError: says both.
    """
    if programs != rows:
        raise DataError(
            f"there are {programs} programs for {rows} rows",
            ["pass one program per row", 'use program="digits" for all rows'],
        )
