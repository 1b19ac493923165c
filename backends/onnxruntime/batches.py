"""Running many rows through a session in batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.progress import track

from graphprog.backends.onnxruntime.program_cache import Array
from graphprog.backends.onnxruntime.session import ProgramArgument, Session
from graphprog.backends.onnxruntime.stacking import joined
from graphprog.errors import DataError
from graphprog.ir.inputs import row_inputs


def run_in_batches(
    session: Session,
    *inputs: Array,
    rows: int = 64,
    program: ProgramArgument = None,
    progress: bool | None = None,
) -> list[np.ndarray]:
    """Run any number of rows in batches, with the memory of one batch.

    Args:
        session: the session that runs them.
        inputs: inputs in order; each has one entry per row, or is passed unchanged to all batches.
        rows: largest number that runs at once.
        program: as for ``Session.run``; of a list, one per row, every batch gets its part.
        progress: False shows no bar; it is shown only on terminals and in notebooks.

    Raises:
        BackendError: there are several batches, and an output has no leading axis of rows.
        DataError: there are no rows, or not as many in every input; else as ``Session.run``.

    Example:
        >>> session = gp.backends.onnxruntime.Session("task.onnx")
        >>> (logits,) = gp.backends.onnxruntime.run_in_batches(session, images, rows=2)
        >>> logits.shape
        (4, 2)
    """
    varying = row_inputs(session.inputs)
    counts = {len(value) for value, varies in zip(inputs, varying, strict=False) if varies}
    if len(counts) != 1 or 0 in counts or rows < 1:
        found = " and ".join(map(str, sorted(counts))) or "none that varies"
        raise DataError(f"inputs have {found} rows, to be run {rows} at a time")
    (count,) = counts
    each = list(program) if isinstance(program, Sequence) and not isinstance(program, str) else None
    if each is not None and len(each) != count:
        raise DataError(f"there are {len(each)} programs for {count} rows")
    if count > rows:
        session.require_rows()
    parts = []
    console = Console(stderr=True)
    drawn = (console.is_terminal or console.is_jupyter) and progress is not False
    for start in track(range(0, count, rows), "running", console=console, disable=not drawn):
        some = slice(start, start + rows)
        batch = [
            value[some] if varies else value for value, varies in zip(inputs, varying, strict=True)
        ]
        parts.append(session.evaluate(batch, each[some] if each is not None else program))
    return [joined(part) for part in zip(*parts, strict=True)]
