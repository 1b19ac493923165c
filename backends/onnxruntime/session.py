"""ONNX Runtime: running exported files, with the program they hold or another."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np
import torch

from graphprog.backends.onnx_model.metadata import KEY, Deployed, Documented, read_document, type_of
from graphprog.backends.onnx_model.program_files import (
    CLASSES,
    ROW,
    LoadedProgram,
    load_program,
    require_one_count,
    same_type,
)
from graphprog.backends.onnx_model.translate import BATCH
from graphprog.backends.onnxruntime.program_cache import (
    Array,
    Program,
    Programs,
    best_of,
    probabilities_of,
)
from graphprog.backends.onnxruntime.providers import Providers, open_session
from graphprog.backends.onnxruntime.session_options import Options
from graphprog.backends.onnxruntime.stacking import by_group, require_as_many, some_rows, stacked
from graphprog.compiler.data_checks import check_inputs
from graphprog.errors import BackendError, DataError, FileError
from graphprog.io.artifact import require_finite, within
from graphprog.ir.inputs import rows_of

# ONNX Runtime's names of element types where they are not NumPy's.
_TYPES = {"float": "float32", "double": "float64"}

Input = Array | float
ProgramArgument = Program | Sequence[Program] | None
"""A program for all rows, one per row, or that of the file."""


class Session(Documented, Programs):
    """A task exported by :func:`graphprog.backends.onnx.export`, run by ONNX Runtime.

    Args:
        path: the ONNX file.
        providers: ``"auto"``, a name such as ``"cuda"``, or several; see
            :func:`graphprog.backends.onnxruntime.providers.open_session`.
        options: threads, memory and optimization; or ONNX Runtime's own.
        memory: bytes of programs that were added by name to keep in memory, the one used last
            always; others are put aside on disk. None keeps all.

    Raises:
        FileError: the file is missing, damaged, incomplete, or not one of graphprog's.
        BackendError: a provider that was asked for is absent or does not start.

    Attributes:
        document: the JSON document of the file.
        overridable: name to type, such as ``float32[3,96,96]``, of every tensor of the program
            that can be overridden; empty for a folded file.
        program_inputs: those of them that the file does not hold, so that every call gives them.
        shared_weights: weights that other sessions read too; the session keeps them alive.

    Example:
        >>> session = gp.backends.onnxruntime.Session("task.onnx")
        >>> session.add("mine", "task.safetensors")  # of any program of its kind
        >>> session.run(images, program="mine").shape
        (4, 2)
    """

    shared_weights: Sequence[Any] = ()

    def __init__(
        self,
        path: str | os.PathLike[str],
        providers: Providers = "auto",
        options: Options = None,
        memory: int | None = None,
    ) -> None:
        super().__init__(memory)
        with within(path):
            self.path = os.fspath(path)
            if not os.path.isfile(path):
                raise FileError("no such file", ["check the path"])
            self._session = open_session(path, providers, options)
            metadata = self._session.get_modelmeta().custom_metadata_map
            self.document: Deployed = read_document(metadata.get(KEY))
            entries = self._session.get_inputs()
            self.program_inputs = {entry.name for entry in entries}.intersection(
                self.document.state
            )
            expected = {spec.name for spec in self.document.inputs}
            if self.document.per_row:
                expected.add(ROW)
            given = {entry.name for entry in entries} - self.program_inputs
            entries = [entry for entry in entries if entry.name in self.program_inputs]
            entries += self._session.get_overridable_initializers()
            stacks = {entry.name for entry in entries if self.document.per_row} - {CLASSES}
            known = self.document.per_row.keys() & self.document.state.keys()
            if given != expected or not stacks <= known:
                raise FileError("its document belongs to another model: the inputs differ")
        self.overridable = {
            entry.name: self.document.state[entry.name]
            if self.document.per_row
            else _type_text(entry)
            for entry in entries
            if entry.name != CLASSES
        }
        self._padded = CLASSES in {entry.name for entry in entries}

    @property
    def providers(self) -> tuple[str, ...]:
        """Where the model runs, most preferred first, in ONNX Runtime's names."""
        return tuple(self._session.get_providers())

    @property
    def output_types(self) -> dict[str, str]:
        """Type of every output by name, such as ``float32[batch,10]``."""
        return {entry.name: _type_text(entry) for entry in self._session.get_outputs()}

    @overload
    def run(
        self,
        *inputs: Input,
        program: ProgramArgument = None,
        outputs: None = None,
        **named: Input,
    ) -> np.ndarray: ...

    @overload
    def run(
        self,
        *inputs: Input,
        program: ProgramArgument = None,
        outputs: Sequence[str],
        **named: Input,
    ) -> dict[str, np.ndarray]: ...

    def run(
        self,
        *inputs: Input,
        program: ProgramArgument = None,
        outputs: Sequence[str] | None = None,
        **named: Input,
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Run on one batch.

        Args:
            inputs: tensors, arrays or numbers in order, checked against the contract.
            program: use this program in place of the file's own: the name of one that was added,
                a saved program file (read at every call), what :meth:`load_program` made of one,
                or tensors by name. A list of such, one per row: in one run where the file was
                exported with ``program="per_row"``, else in a run for each different program.
            outputs: names of outputs to return by name; of the file's others only what these need
                is computed.
            named: further inputs by name.

        Returns:
            The first output, or a mapping where ``outputs`` are named: target logits [B, classes]
            where the program aligns. Rows whose program has fewer classes than another row's are
            filled up with -inf.

        Raises:
            DataError: inputs are missing, unknown, or of another shape, dtype or range; or there
                are as many programs, but not as many rows.
            BackendError: the program is unknown or does not fit, or the file is folded.
            FileError: the program file is unreadable, or belongs to another source or spec.
        """
        values = self._arranged(inputs, named)
        if outputs is None:
            return self.evaluate(values, program)[0]
        known = [entry.name for entry in self._session.get_outputs()]
        if unknown := [name for name in outputs if name not in known]:
            raise BackendError(
                f"{self.path}: has no output {', '.join(unknown)}",
                [f"it has {', '.join(known)}", "export(task, path, outputs=[...])"],
            )
        return dict(zip(outputs, self.evaluate(values, program, outputs), strict=True))

    @overload
    def predict(
        self,
        *inputs: Input,
        program: ProgramArgument = None,
        probabilities: Literal[False] = False,
        **named: Input,
    ) -> list[str]: ...

    @overload
    def predict(
        self,
        *inputs: Input,
        program: ProgramArgument = None,
        probabilities: Literal[True],
        **named: Input,
    ) -> list[dict[str, float]]: ...

    def predict(
        self,
        *inputs: Input,
        program: ProgramArgument = None,
        probabilities: bool = False,
        **named: Input,
    ) -> list[str] | list[dict[str, float]]:
        """Label of every row of a batch, or the probability of every label.

        Args:
            inputs: as in :meth:`run`.
            program: likewise.
            probabilities: return for each row a mapping of label to probability, the softmax of
                the target logits, the most probable first.
            named: as in :meth:`run`.

        Raises:
            BackendError: neither the file nor the program names its classes.
        """
        meant = self.resolved(program)
        logits = self.evaluate(self._arranged(inputs, named), meant)[0]
        names = self.labels_of(meant, len(logits), self.labels)
        return probabilities_of(names, logits) if probabilities else best_of(names, logits)

    def evaluate(
        self,
        inputs: Sequence[Input],
        program: ProgramArgument = None,
        outputs: Sequence[str] | None = None,
    ) -> list[np.ndarray]:
        """All outputs, or those named, for inputs in order; otherwise as :meth:`run`."""
        return self.run_checked(self.checked_inputs(inputs), self.resolved(program), outputs)

    def checked_inputs(self, inputs: Sequence[Input]) -> tuple[torch.Tensor, ...]:
        """Return inputs in order as tensors on the CPU, checked against the contract.

        Raises:
            DataError: as :meth:`run`.
        """
        tensors = tuple(map(_tensor, inputs))
        check_inputs(self.inputs, self.contract, tensors)
        return tensors

    def run_checked(
        self,
        inputs: Sequence[torch.Tensor],
        program: LoadedProgram | list[LoadedProgram] | None,
        outputs: Sequence[str] | None = None,
    ) -> list[np.ndarray]:
        """All outputs, or those named, without further checks of inputs and programs.

        Args:
            inputs: of :meth:`checked_inputs`; batches of them may have been joined.
            program: of :meth:`resolved`; likewise.
            outputs: as for :meth:`run`.

        Raises:
            BackendError: ONNX Runtime fails, or rows with different programs cannot be joined.
            DataError: another number of programs than of rows.
        """
        if isinstance(program, list) and not self.document.per_row:
            self.require_rows()

            def run(rows: Sequence[int]) -> list[np.ndarray]:
                some = some_rows(self.inputs, inputs, rows, len(program))
                return self._evaluated(some, program[rows[0]], outputs)

            return by_group([id(one) for one in program], run)
        return self._evaluated(inputs, program, outputs)

    def _evaluated(
        self,
        tensors: Sequence[torch.Tensor],
        program: LoadedProgram | list[LoadedProgram] | None,
        names: Sequence[str] | None,
    ) -> list[np.ndarray]:
        """Outputs of one run, for inputs that were checked."""
        feeds = {
            spec.name: value.to(spec.dtype).numpy()
            for spec, value in zip(self.inputs, tensors, strict=True)
        }
        feeds |= self._overrides(program, tensors)
        try:
            outputs: list[np.ndarray] = self._session.run(names, feeds)
        except Exception as error:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feeds.items())
            raise BackendError(f"{self.path}: failed on {shapes}: {error}") from error
        return outputs

    def require_rows(self) -> None:
        """Refuse to put outputs of several runs together where they are not one entry a row.

        Raises:
            BackendError: names the outputs that are not.
        """
        others = [one.name for one in self._session.get_outputs() if one.shape[:1] != [BATCH]]
        if others:
            raise BackendError(
                f"{self.path}: outputs {', '.join(others)} have no leading axis of rows, so those "
                "of several runs cannot be put together",
                ["one program for all rows, and all rows at once"],
            )

    def load_program(self, path: str | os.PathLike[str]) -> LoadedProgram:
        """Read a saved program that was made for the same source and the same spec.

        Raises:
            FileError: unreadable; for another source; or of another spec than the file's, so
                that the graph in the file is not that program's.
            BackendError: the file is folded.
        """
        self._require_overridable()
        loaded = load_program(path, self.document, self.path)
        used = {name: one for name, one in loaded.tensors.items() if name in self.overridable}
        return dataclasses.replace(loaded, tensors=used)

    def _arranged(self, inputs: Sequence[Input], named: Mapping[str, Input]) -> list[Input]:
        names = [spec.name for spec in self.inputs]
        given = dict(zip(names, inputs, strict=False))
        both, unknown = set(given).intersection(named), set(named).difference(names)
        if len(inputs) > len(names) or both or unknown or len(given) + len(named) < len(names):
            raise DataError(
                f"the model takes {', '.join(map(str, self.inputs))}; given were {len(inputs)} by "
                f"position and {', '.join(named) or 'none'} by name"
            )
        given.update(named)
        for spec in self.inputs:
            if isinstance(given[spec.name], int | float):
                given[spec.name] = torch.tensor(given[spec.name], dtype=spec.dtype)
        return [given[name] for name in names]

    def _require_overridable(self) -> None:
        if not self.overridable:
            raise BackendError(
                f"{self.path}: its program is folded in and cannot be replaced",
                ['export(task, path, program="overridable")'],
            )

    def resolved(self, program: ProgramArgument) -> LoadedProgram | list[LoadedProgram] | None:
        """The loaded program, or that of each row; None for that of the file.

        Raises:
            BackendError: the file holds none, and none is given; or as :meth:`run`.
            FileError: as :meth:`run`.
        """
        if isinstance(program, Sequence) and not isinstance(program, str):
            return self.resolve_rows(program)
        if program is not None:
            return self.resolve(program)
        if self.program_inputs:
            raise BackendError(
                f"{self.path}: it holds no program", ['run(..., program="digits.safetensors")']
            )
        return None

    def checked(self, program: Program) -> LoadedProgram:
        """A program that can run here; see :meth:`Programs.checked`."""
        self._require_overridable()
        if isinstance(program, str | os.PathLike):
            return self.load_program(program)
        tensors = program.tensors if isinstance(program, LoadedProgram) else program
        labels = program.labels if isinstance(program, LoadedProgram) else ()
        unread = self.document.state.keys() - self.overridable.keys()
        found = {name: _tensor(one) for name, one in tensors.items() if name not in unread}
        for name, value in found.items():
            require_finite(name, value)
        known = "\n  ".join(f"{key}: {text}" for key, text in self.overridable.items())
        types = {name: type_of(value) for name, value in found.items()}
        for name, text in types.items():
            if not same_type(text, self.overridable.get(name), self.document.per_row.get(name)):
                raise BackendError(
                    f"{name}: {text} replaces no tensor of the program; it has\n  {known}"
                )
        needed = self.overridable if self.document.per_row else self.program_inputs
        if missing := set(needed).difference(found):
            raise BackendError(f"the program has no {', '.join(sorted(missing))}")
        require_one_count(types, self.document.per_row)
        return LoadedProgram({name: value.numpy() for name, value in found.items()}, labels)

    def _overrides(
        self, program: LoadedProgram | list[LoadedProgram] | None, inputs: Sequence[torch.Tensor]
    ) -> dict[str, np.ndarray]:
        """Return the checked feeds of the program, besides the inputs."""
        if not self.document.per_row:
            assert not isinstance(program, list)
            return {} if program is None else dict(program.tensors)
        rows = rows_of(self.inputs, inputs)
        if program is None:
            return {ROW: np.zeros(rows, dtype=np.int64)}
        if isinstance(program, LoadedProgram):
            program = [program] * rows
        else:
            require_as_many(len(program), rows)
        return self.per_row_inputs(program)

    def per_row_inputs(self, programs: Sequence[LoadedProgram]) -> dict[str, np.ndarray]:
        """What a file with one program per row is fed for rows of these programs, by name."""
        axes = {name: self.document.per_row[name] for name in self.overridable}
        stacks, places, classes = stacked(programs, axes)
        return stacks | {ROW: places} | ({CLASSES: classes} if self._padded else {})


def _tensor(value: Any) -> torch.Tensor:
    """Convert to a CPU tensor, sharing the memory of a writable array."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    array = np.asarray(value)
    try:
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except (TypeError, ValueError) as error:
        raise DataError(f"not an array of numbers: {str(error)[:200]}") from error


def _type_text(entry: Any) -> str:
    element = entry.type.removeprefix("tensor(").removesuffix(")")
    return f"{_TYPES.get(element, element)}[{','.join(map(str, entry.shape))}]"
