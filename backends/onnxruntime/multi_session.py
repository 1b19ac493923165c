"""Sessions for several kinds of programs on one source, each with the graph of its kind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import onnx
import onnxruntime

from graphprog.backends.onnx_model.metadata import KEY, Deployed, read_document
from graphprog.backends.onnx_model.program_files import LoadedProgram, load_for
from graphprog.backends.onnxruntime.program_cache import (
    Array,
    Program,
    Programs,
    best_of,
    probabilities_of,
)
from graphprog.backends.onnxruntime.providers import Providers
from graphprog.backends.onnxruntime.session import Session
from graphprog.backends.onnxruntime.stacking import by_group, some_rows
from graphprog.errors import BackendError, FileError
from graphprog.io.artifact import within


class MultiSession(Programs):
    """A folder that :func:`graphprog.backends.onnx.export_multi_graph` wrote, run by ONNX Runtime.

    The graph of a slot is loaded when a program needs it.

    Args:
        path: the folder.
        providers: as for :class:`graphprog.backends.onnxruntime.Session`.
        memory: likewise.
        share: whether all graphs read the same weights in memory. Otherwise each packs the weights
            of its linear layers into a copy, with which ONNX Runtime is faster.

    Raises:
        FileError: no such folder, a file in it is damaged, or they are of different sources.

    Attributes:
        documents: the JSON document of each slot's file, by the name of the slot.

    Example:
        >>> slots = {"frames": gp.Program([gp.Additive()], align=gp.FixedMap(classes=2))}
        >>> reports = gp.backends.onnx.export_multi_graph(graph, "served", slots)
        >>> server = gp.backends.onnxruntime.MultiSession("served")
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        providers: Providers = "auto",
        memory: int | None = None,
        share: bool = False,
    ) -> None:
        super().__init__(memory)
        self.path = Path(path)
        self._providers = providers
        self._weights: dict[tuple[int, str], Any] | None = {} if share else None
        self._sessions: dict[str, Session] = {}
        with within(path):
            files = sorted(self.path.glob("*.onnx"))
            if not files:
                raise FileError(
                    "there are no slots: no ONNX file", ["onnx.export_multi_graph(...)"]
                )
            self.documents = {file.stem: _document(file) for file in files}
            if len({document.source for document in self.documents.values()}) > 1:
                raise FileError("its files are of different sources")

    def session(self, slot: str) -> Session:
        """Return the session of a slot.

        Raises:
            BackendError: there is no such slot, or a provider does not start.
            FileError: its file is damaged.
        """
        if slot not in self.documents:
            raise BackendError(f"there is no slot {slot!r}; there are {', '.join(self.documents)}")
        if slot not in self._sessions:
            file = self.path / f"{slot}.onnx"
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # errors only
            weights = [] if self._weights is None else _share(file, options, self._weights)
            session = Session(file, self._providers, options)
            session.shared_weights = weights
            self._sessions[slot] = session
        return self._sessions[slot]

    def checked(self, program: Program) -> LoadedProgram:
        """Return a program with its slot; see :meth:`Programs.checked`."""
        if isinstance(program, str | os.PathLike):
            return load_for(program, self.documents)
        if isinstance(program, LoadedProgram) and program.slot in self.documents:
            return program
        raise BackendError(
            f"a {type(program).__name__} does not say which slot it is for",
            ["pass the file of a saved program", "pass tensors by name to session(slot)"],
        )

    def run(self, *inputs: Array, program: Program | Sequence[Program]) -> np.ndarray:
        """Run on one batch.

        Args:
            inputs: tensors or arrays in order, as the slots of these programs take them.
            program: as for :meth:`Session.run`. Rows whose programs are of different slots are
                computed slot by slot.

        Returns:
            Target logits [B, classes]; rows with fewer classes than others are padded with -inf.

        Raises:
            BackendError: an unknown program.
            DataError: inputs that do not fit, or another number of rows than of programs.
            FileError: a program's file is unreadable, or fits no slot.
        """
        return self._run(inputs, self._resolved(program))

    @overload
    def predict(
        self,
        *inputs: Array,
        program: Program | Sequence[Program],
        probabilities: Literal[False] = False,
    ) -> list[str]: ...

    @overload
    def predict(
        self,
        *inputs: Array,
        program: Program | Sequence[Program],
        probabilities: Literal[True],
    ) -> list[dict[str, float]]: ...

    def predict(
        self,
        *inputs: Array,
        program: Program | Sequence[Program],
        probabilities: bool = False,
    ) -> list[str] | list[dict[str, float]]:
        """Return the label of every row, or the probability of every label.

        Arguments are those of :meth:`run`, and ``probabilities`` that of :meth:`Session.predict`.

        Raises:
            BackendError: a program does not name its classes.
        """
        meant = self._resolved(program)
        logits = self._run(inputs, meant)
        names = self.labels_of(meant, len(logits))
        return probabilities_of(names, logits) if probabilities else best_of(names, logits)

    def _resolved(self, program: Any) -> LoadedProgram | list[LoadedProgram]:
        several = isinstance(program, Sequence) and not isinstance(program, str)
        return self.resolve_rows(program) if several else self.resolve(program)

    def _run(
        self, inputs: Sequence[Array], program: LoadedProgram | list[LoadedProgram]
    ) -> np.ndarray:
        if isinstance(program, LoadedProgram):
            return self.session(program.slot).run(*inputs, program=program)

        def run(rows: Sequence[int]) -> list[np.ndarray]:
            slot = program[rows[0]].slot
            given = some_rows(self.documents[slot].inputs, inputs, rows, len(program))
            logits = self.session(slot).run(*given, program=[program[row] for row in rows])
            if logits.ndim != 2 and len(rows) < len(program):
                raise BackendError(
                    "rows of several slots are put together where all have logits [B, K]"
                )
            return [logits]

        return by_group([one.slot for one in program], run)[0]


def _document(file: Path) -> Deployed:
    """Read the JSON document of a file."""
    with within(file):
        return read_document(metadata_of(file).get(KEY))


def metadata_of(file: Path) -> dict[str, str]:
    """Return the metadata of an ONNX file, without loading weights that lie beside it.

    Raises:
        FileError: missing, or not an ONNX file.
    """
    if not file.is_file():
        raise FileError(f"{file}: no such file", ["check the path"])
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:
        raise FileError(f"{file}: not an ONNX file: {error}", ["export it again"]) from error
    return {one.key: one.value for one in model.metadata_props}


def _share(
    file: Path, options: onnxruntime.SessionOptions, weights: dict[tuple[int, str], Any]
) -> list[Any]:
    """Make a session read weights that are shared with others; return them.

    They are mapped from the file, so only the used parts are in memory.
    """
    options.add_session_config_entry("session.disable_prepacking", "1")
    used = []
    for tensor in onnx.load(file, load_external_data=False).graph.initializer:
        location = {entry.key: entry.value for entry in tensor.external_data}
        if not location:
            continue
        try:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            data, offset = file.parent / Path(location["location"]).name, int(location["offset"])
            key = offset, f"{dtype}{list(tensor.dims)}"
            if key not in weights:
                array = np.memmap(data, dtype, "r", offset, tuple(tensor.dims))
                weights[key] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileError(
                f"{file}: the weights {tensor.name!r} cannot be read: {error}",
                ["export the slots again: data that belong beside this file are gone or damaged"],
            ) from error
        options.add_initializer(tensor.name, weights[key])
        used.append(weights[key])
    return used
