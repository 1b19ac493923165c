"""Models that compute rows: sessions of ONNX Runtime, whose rows have programs of their own."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphprog.backends.onnx_model.program_files import LoadedProgram
from graphprog.backends.onnx_model.translate import BATCH
from graphprog.backends.onnxruntime.multi_session import MultiSession
from graphprog.backends.onnxruntime.session import Input, Session
from graphprog.backends.onnxruntime.stacking import (
    class_count,
    joined,
    require_as_many,
    some_rows,
)
from graphprog.errors import GraphprogError
from graphprog.ir.inputs import batch_axis, random_inputs, row_inputs, rows_of
from graphprog.serve.limits import Limits, RequestError
from graphprog.serve.metrics import Metrics
from graphprog.serve.served import Served
from graphprog.serve.texts import TextReader

_SAME = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Checked rows of a request, of one session.

    Attributes:
        session: that computes them.
        inputs: in order.
        programs: one per row; None for that of the file.
        outputs: names to return; None for all.
        count: how many rows there are.
    """

    session: Session
    inputs: Sequence[torch.Tensor]
    programs: list[LoadedProgram] | None
    outputs: tuple[str, ...] | None
    count: int


class RowModel(Served):
    """An exported file, or a folder of several kinds of programs.

    Args:
        session: runs the file, or the folder.
        name: see :class:`Served`; limits and metrics likewise.
        limits: see there.
        metrics: see there.
        reader: turns texts into inputs; None where there is no tokenizer.
    """

    def __init__(
        self,
        session: Session | MultiSession,
        name: str,
        limits: Limits,
        metrics: Metrics,
        reader: TextReader | None = None,
    ) -> None:
        super().__init__(name, limits, metrics)
        self.session = session
        self.reader = reader
        self._joins: dict[int, bool] = {}
        if isinstance(session, Session):
            self._joins[id(session)] = rows_are_independent(session)

    def loaded(self, path: Path) -> Any:
        """Read a program; and its text, where there is a tokenizer."""
        program = self.session.checked(path)
        if isinstance(self.session, MultiSession):
            slot = self.session.session(program.slot)  # its graph is loaded here, not by a request
            self._joins[id(slot)] = rows_are_independent(slot)
        return program, None if self.reader is None else self.reader.prompt_of(path)

    def install(self, name: str, loaded: Any) -> Sequence[str]:
        """Put a program in place."""
        program, prompt = loaded
        self.session.add(name, program)
        if self.reader is not None:
            self.reader.prompts[name] = prompt
        return tuple(program.labels)

    def uninstall(self, name: str) -> None:
        """Remove a program."""
        self.session.remove(name)
        if self.reader is not None:
            del self.reader.prompts[name]

    def session_of(self, program: str | None) -> Session:
        """Return the session that runs a program, or the model without one.

        Raises:
            RequestError: no such program (404); or a folder of several kinds runs none without one.
        """
        if isinstance(self.session, Session):
            if program is not None:
                self.program(program)
            return self.session
        if program is None:
            raise self._nameless()
        self.program(program)
        return self.session.session(self.session.resolve(program).slot)

    def _nameless(self) -> RequestError:
        return RequestError(400, f"{self.name} has no program of its own", ["name a program"])

    async def run(
        self,
        inputs: Sequence[Input],
        programs: Sequence[str] | None,
        outputs: tuple[str, ...] | None = None,
    ) -> list[np.ndarray]:
        """Return the outputs for a batch of rows, each computed with its own program.

        Args:
            inputs: in order.
            programs: names, one per row, or one for all; None for that of the file.
            outputs: names; None for all.

        Raises:
            DataError: the inputs do not fit.
            RequestError: an unknown program, or the server is busy.
        """
        loaded = None if programs is None else [self._program(name) for name in programs]
        if isinstance(self.session, Session):
            return await self._submitted(self._rows(self.session, inputs, loaded, outputs))
        if loaded is None:
            raise self._nameless()
        return await self._run_slots(self.session, inputs, loaded, outputs)

    def _program(self, name: str) -> LoadedProgram:
        self.program(name)
        return self.session.resolve(name)

    async def _run_slots(
        self,
        session: MultiSession,
        inputs: Sequence[Input],
        programs: list[LoadedProgram],
        outputs: tuple[str, ...] | None,
    ) -> list[np.ndarray]:
        """Return the outputs for rows whose programs are of several slots."""
        slots: dict[str, list[int]] = {}
        for row, program in enumerate(programs):
            slots.setdefault(program.slot, []).append(row)
        if len(slots) == 1:
            rows = self._rows(session.session(programs[0].slot), inputs, programs, outputs)
            return await self._submitted(rows)
        parts = []
        for slot, numbers in slots.items():
            one = session.session(slot)
            some = some_rows(one.inputs, inputs, numbers, len(programs))
            chosen = [programs[number] for number in numbers]
            parts.append(self._rows(one, some, chosen, outputs))
        found = await asyncio.gather(*map(self._submitted, parts))
        order = np.argsort([number for numbers in slots.values() for number in numbers])
        return [joined(some)[order] for some in zip(*found, strict=True)]

    def _rows(
        self,
        session: Session,
        inputs: Sequence[Input],
        programs: list[LoadedProgram] | None,
        outputs: tuple[str, ...] | None,
    ) -> Rows:
        """Return checked rows."""
        tensors = session.checked_inputs(inputs)
        for spec, value in zip(session.inputs, tensors, strict=True):
            varying = zip(spec.shape[1:], value.shape[1:], strict=True)
            if any(isinstance(axis, str) and size > self.limits.length for axis, size in varying):
                raise RequestError(
                    413, f"{spec.name}: axes of {spec} may have up to {self.limits.length} entries"
                )
        count = rows_of(session.inputs, tensors)
        if any(
            len(value) != count
            for value, by_row in zip(tensors, row_inputs(session.inputs), strict=True)
            if by_row
        ):
            raise RequestError(400, "the inputs have different numbers of rows")
        if not count:
            raise RequestError(400, "the request has no rows")
        if programs is None:
            session.resolved(None)
        elif len(programs) == 1:
            programs = programs * count
        else:
            require_as_many(len(programs), count)
        if outputs and (unknown := set(outputs).difference(session.document.outputs)):
            known = ", ".join(session.document.outputs)
            raise RequestError(400, f"there is no output {min(unknown)!r:.80}; there are {known}")
        return Rows(session, tensors, programs, outputs, count)

    async def _submitted(self, rows: Rows) -> list[np.ndarray]:
        found: list[np.ndarray] = await self.batcher.submit(self._key(rows), rows.count, rows)
        return found

    def _key(self, rows: Rows) -> Hashable:
        """Return what rows have in common that can be computed together."""
        session = rows.session
        if not self._joins[id(session)]:
            return object()
        types = tuple(
            tuple(value.shape[1:]) if by_row else value.numpy().tobytes()
            for value, by_row in zip(rows.inputs, row_inputs(session.inputs), strict=True)
        )
        return id(session), rows.outputs, rows.programs is None, types

    def compute(self, jobs: Sequence[Rows]) -> Sequence[list[np.ndarray]]:
        """Run the rows of several requests as one batch."""
        first = jobs[0]
        if len(jobs) == 1:
            return [_trimmed(first, _evaluated(first, first.inputs, first.programs))]
        inputs = [
            torch.cat([job.inputs[number] for job in jobs]) if by_row else value
            for number, (value, by_row) in enumerate(
                zip(first.inputs, row_inputs(first.session.inputs), strict=True)
            )
        ]
        programs = None
        if first.programs is not None:
            programs = [program for job in jobs for program in job.programs or ()]
        found = _evaluated(first, inputs, programs)
        ends = np.cumsum([job.count for job in jobs])[:-1]
        parts = zip(*(np.split(output, ends) for output in found), strict=True)
        return [_trimmed(job, list(part)) for job, part in zip(jobs, parts, strict=True)]


def _evaluated(
    first: Rows, inputs: Sequence[torch.Tensor], programs: list[LoadedProgram] | None
) -> list[np.ndarray]:
    """Run rows; a file whose rows cannot have different programs gets one for all."""
    program: LoadedProgram | list[LoadedProgram] | None = programs
    if programs and all(one is programs[0] for one in programs):
        program = programs[0]
    return first.session.run_checked(inputs, program, first.outputs)


def _trimmed(rows: Rows, outputs: list[np.ndarray]) -> list[np.ndarray]:
    """Remove the classes that only programs of other requests have."""
    if not rows.programs:
        return outputs
    axes: Mapping[str, int | None] = rows.session.document.per_row
    width = max(class_count(program, axes) for program in rows.programs)
    return [
        output[:, :width]
        if width and output.ndim == 2 and np.isneginf(output[:, width:]).all()
        else output
        for output in outputs
    ]


def rows_are_independent(session: Session) -> bool:
    """Whether rows of a session can be joined with others: each has the same result alone.

    Files with one program per row were proved so at export; others are tried on random rows.
    """
    letter = batch_axis(session.inputs)
    sizes = [text.partition("[")[2].strip("]").split(",") for text in session.output_types.values()]
    if letter is None or any(size[0] != BATCH for size in sizes):
        return False
    if session.document.per_row:
        return True
    if session.program_inputs:
        return False
    inputs = random_inputs(session.inputs, 3, session.contract.range or (0.0, 1.0), seed=0)
    try:
        together = session.run_checked(inputs, None)
        for row in range(3):
            alone = session.run_checked(some_rows(session.inputs, inputs, [row], 3), None)
            for one, other in zip(together, alone, strict=True):
                if not np.allclose(one[row : row + 1], other, rtol=_SAME, atol=_SAME):
                    return False
    except GraphprogError:
        return False
    return True
