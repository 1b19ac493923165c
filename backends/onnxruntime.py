"""ONNX Runtime: running exported files, with the program they hold or another."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
import torch

from graphprog.artifact import read, within
from graphprog.backends.document import (
    KEY,
    Deployed,
    Documented,
    fixed_tensors,
    read_document,
    type_of,
)
from graphprog.backends.onnxruntime_writer import Writer as Writer
from graphprog.backends.providers import Providers, open_session
from graphprog.backends.training.export import export_training as export_training
from graphprog.backends.training.trainer import Trainer as Trainer
from graphprog.checks import check_inputs
from graphprog.errors import BackendError, DataError, FileError
from graphprog.saving import check_source

Array = np.ndarray | torch.Tensor

# ONNX Runtime's names of element types where they are not NumPy's.
_TYPES = {"float": "float32", "double": "float64"}


@dataclasses.dataclass(frozen=True)
class LoadedProgram:
    """The tensors of a saved program, ready for a session, and the labels that go with them."""

    tensors: Mapping[str, np.ndarray]
    labels: tuple[str, ...] = ()


Program = LoadedProgram | Mapping[str, Array] | str | os.PathLike[str]


class Session(Documented):
    """A task exported by :func:`graphprog.backends.onnx.export`, run by ONNX Runtime.

    Args:
        path: the ONNX file.
        providers: ``"auto"``, a name such as ``"cuda"``, or several; see
            :func:`graphprog.backends.providers.open_session`.
        options: session options of ONNX Runtime.

    Raises:
        FileError: the file is missing, damaged, incomplete, or not one of graphprog's.
        BackendError: a provider that was asked for is absent or does not start.

    Attributes:
        document: what the file says of itself.
        swappable: name to type, such as ``float32[3,96,96]``, of every tensor of the program
            that can be overridden; empty for a folded file.
        open: those of them that the file does not hold, so that every call gives them.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        providers: Providers = "auto",
        options: onnxruntime.SessionOptions | None = None,
    ) -> None:
        self.path = os.fspath(path)
        with within(path):
            if not os.path.isfile(path):
                raise FileError("no such file", ["check the path"])
            self._session = open_session(path, providers, options)
            metadata = self._session.get_modelmeta().custom_metadata_map
            self.document: Deployed = read_document(metadata.get(KEY))
            entries = self._session.get_inputs()
            self.open = {entry.name for entry in entries}.intersection(self.document.state)
            if {e.name for e in entries} - self.open != {s.name for s in self.document.inputs}:
                raise FileError("its document belongs to another model: the inputs differ")
        entries = [entry for entry in entries if entry.name in self.open]
        self.swappable = {
            entry.name: _type_text(entry)
            for entry in [*entries, *self._session.get_overridable_initializers()]
        }

    @property
    def providers(self) -> tuple[str, ...]:
        """Where the model runs, most preferred first, in ONNX Runtime's names."""
        return tuple(self._session.get_providers())

    def run(self, *inputs: Array, program: Program | None = None, **named: Array) -> np.ndarray:
        """Run on one batch.

        Args:
            inputs: tensors or arrays in order, checked against the contract.
            program: use this program in place of the file's own: tensors by name, a saved
                program file (read at every call), or what :meth:`load_program` made of one.
            named: further inputs by name.

        Returns:
            The first output: target logits [B, classes] where the program aligns.

        Raises:
            DataError: inputs are missing, unknown, or of another shape, dtype or range.
            BackendError: the program does not fit, or the file is folded.
            FileError: the program file is unreadable, or belongs to another source or spec.
        """
        return self.evaluate(self._arranged(inputs, named), program)[0]

    def predict(self, *inputs: Array, program: Program | None = None, **named: Array) -> list[str]:
        """Label of every row of a batch; arguments as in :meth:`run`.

        Raises:
            BackendError: neither the file nor the program names its classes.
        """
        if isinstance(program, str | os.PathLike):
            program = self.load_program(program)
        labels = program.labels if isinstance(program, LoadedProgram) else self.labels
        if not labels:
            raise BackendError(
                "the program does not name its classes",
                ["Contract(labels=(...)) in the program", "run(...).argmax(1) gives numbers"],
            )
        return [labels[number] for number in self.run(*inputs, program=program, **named).argmax(1)]

    def evaluate(self, inputs: Sequence[Array], program: Program | None = None) -> list[np.ndarray]:
        """All outputs, for inputs in order; otherwise as :meth:`run`."""
        tensors = tuple(_tensor(value) for value in inputs)
        check_inputs(self.inputs, self.contract, tensors)
        feeds = {
            spec.name: value.to(spec.dtype).numpy()
            for spec, value in zip(self.inputs, tensors, strict=True)
        }
        feeds |= self._overrides(program)
        try:
            outputs: list[np.ndarray] = self._session.run(None, feeds)
        except Exception as error:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feeds.items())
            raise BackendError(f"{self.path}: failed on {shapes}: {error}") from error
        return outputs

    def load_program(self, path: str | os.PathLike[str]) -> LoadedProgram:
        """Read a saved program that was made for the same source and the same spec.

        Raises:
            FileError: unreadable; for another source; or of another spec than the file's, so
                that the graph in the file is not that program's.
            BackendError: the file is folded.
        """
        self._require_swappable()
        tensors, saved = read(path)
        own = self.document
        with within(path):
            check_source(saved.get("source"), own.source_name, own.source)
            state = {name: tensors[name] for name in own.state if name in tensors}
            fixed = {name: tensor for name, tensor in tensors.items() if name not in own.state}
            if {name: type_of(tensor) for name, tensor in state.items()} != own.state or (
                _in_graph(saved.get("program")) != _in_graph(own.program)
                or fixed_tensors(fixed) != own.fixed
            ):
                raise FileError(
                    f"its program is not of the kind that {self.path} was exported with",
                    ["export a task of that program", "compare the programs: print(task.spec)"],
                )
        labels = saved.get("labels")
        names = tuple(map(str, labels)) if isinstance(labels, list) else ()
        return LoadedProgram(
            {name: value.numpy() for name, value in state.items() if name in self.swappable}, names
        )

    def _arranged(self, inputs: Sequence[Array], named: Mapping[str, Array]) -> list[Array]:
        names = [spec.name for spec in self.inputs]
        given = dict(zip(names, inputs, strict=False))
        both, unknown = set(given).intersection(named), set(named).difference(names)
        if len(inputs) > len(names) or both or unknown or len(given) + len(named) < len(names):
            raise DataError(
                f"the model takes {', '.join(map(str, self.inputs))}; given were {len(inputs)} by "
                f"position and {', '.join(named) or 'none'} by name"
            )
        given.update(named)
        return [given[name] for name in names]

    def _require_swappable(self) -> None:
        if not self.swappable:
            raise BackendError(
                f"{self.path}: its program is folded in and cannot be replaced",
                ['export(task, path, program="swappable")'],
            )

    def _overrides(self, program: Program | None) -> dict[str, np.ndarray]:
        if program is None and not self.open:
            return {}
        if program is None:
            raise BackendError(
                f"{self.path}: it holds no program", ['run(..., program="digits.safetensors")']
            )
        self._require_swappable()
        if isinstance(program, str | os.PathLike):
            program = self.load_program(program)
        tensors = program.tensors if isinstance(program, LoadedProgram) else program
        found = {name: _tensor(value) for name, value in tensors.items()}
        for name, value in found.items():
            if self.swappable.get(name) != type_of(value):
                known = "\n  ".join(f"{key}: {text}" for key, text in self.swappable.items())
                raise BackendError(
                    f"{name}: {type_of(value)} replaces no tensor of the program; it has\n  {known}"
                )
        if missing := self.open.difference(found):
            raise BackendError(f"the program has no {', '.join(sorted(missing))}")
        return {name: value.numpy() for name, value in found.items()}


def _tensor(value: Any) -> torch.Tensor:
    """On the processor, sharing memory with an array where it may be written to."""
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


def _in_graph(program: Any) -> Any:
    """A program's spec without what no graph depends on.

    These are names of classes, and text around queries, which is not in the graph, or is stored in
    it as numbers of another part.
    """
    if not isinstance(program, dict) or not isinstance(program.get("contract"), dict):
        return program
    contract = {name: value for name, value in program["contract"].items() if name != "labels"}
    parts = program.get("manipulations", [])
    if isinstance(parts, list):
        parts = [part for part in parts if not _is_outside(part)]
    return {**program, "contract": contract, "manipulations": parts}


def _is_outside(part: Any) -> bool:
    return isinstance(part, dict) and part.get("kept") in ("text", "stored")
