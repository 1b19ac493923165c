"""What gives labels to examples: an ONNX file, or the folder of a run."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphprog.backends.onnxruntime.session import Session
from graphprog.cli.data.audio import AudioForm
from graphprog.cli.data.classes import NUMERIC
from graphprog.cli.data.examples import Examples
from graphprog.cli.data.images import ImageForm
from graphprog.cli.data.prepare import ArrayForm, Form, Prepared
from graphprog.cli.data.unlabeled import read_unlabeled
from graphprog.cli.training.run_folder import RunFolder
from graphprog.cli.training.session import trained_session
from graphprog.errors import DataError
from graphprog.serve.texts import TextReader, tokenizer_of

Answer = Mapping[str, float]
"""Probabilities by label, the likeliest first; or the only number, by the name ``value``."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What is to be labeled, and how it is read.

    Attributes:
        paths: see :func:`read_unlabeled`.
        columns: of a table; by default as the run was trained, or the only one.
        batch_size: examples per forward pass.
        tokenizer: of an ONNX file that reads texts: a folder or name of transformers.
        sample_rate: of an ONNX file that reads waveforms.
    """

    paths: Sequence[Path]
    columns: Sequence[str] = ()
    batch_size: int = 64
    tokenizer: str = ""
    sample_rate: int | None = None


class Labeler(abc.ABC):
    """Labels examples in batches."""

    @abc.abstractmethod
    def answers(self, examples: Examples, batch_size: int) -> Iterator[Answer]:
        """Yield the answer for each example, in order.

        Raises:
            DataError: an example cannot be read, or does not fit.
        """


def answered(
    task: Path, program: Path | None, inputs: Inputs, no_cache: bool
) -> Iterator[tuple[str, Answer]]:
    """Yield the place of every example, and its answer.

    Args:
        task: an ONNX file, or the folder of a run.
        program: a program in place of that of the file.
        inputs: what is to be labeled.
        no_cache: see :func:`open_model`.

    Raises:
        FileError: the task is neither, or not finished.
        DataError: an example cannot be read, or does not fit.
    """
    labeler: Labeler
    if task.suffix == ".onnx":
        labeler = FileLabeler(task, program, inputs)
        if len(inputs.paths) == 1 and inputs.paths[0].suffix == ".npz":
            for number, answer in enumerate(labeler.named(inputs.paths[0])):
                yield str(number), answer
            return
        examples = read_unlabeled(inputs.paths, inputs.columns)
    else:
        folder = RunFolder(task)
        section = folder.read()[0].data
        examples = read_unlabeled(inputs.paths, inputs.columns or section.input, section.label)
        if section.kind != "auto":
            examples = dataclasses.replace(examples, kind=section.kind)
        labeler = RunLabeler(folder, program, examples, no_cache)
    for number, answer in enumerate(labeler.answers(examples, inputs.batch_size)):
        yield str(examples.rows[number]), answer


class FileLabeler(Labeler):
    """An ONNX file that graphprog wrote."""

    def __init__(self, file: Path, program: Path | None, inputs: Inputs) -> None:
        self.session = Session(file)
        self.path = program
        self.program = None if program is None else "program"
        if program is not None:
            self.session.add("program", program)
        self.inputs = inputs

    def named(self, path: Path) -> Iterator[Answer]:
        """Yield answers for arrays by the name of their input.

        Raises:
            DataError: it is not a file of arrays.
        """
        try:
            with np.load(path, allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path}: not a file of arrays: {error}") from error
        yield from self.session.predict(**arrays, program=self.program, probabilities=True)

    def answers(self, examples: Examples, batch_size: int) -> Iterator[Answer]:
        """Yield probabilities."""
        for batch in self._batches(examples, batch_size):
            yield from self.session.predict(*batch, program=self.program, probabilities=True)

    def _batches(self, examples: Examples, batch_size: int) -> Iterator[Sequence[Any]]:
        if examples.kind != "text":
            for rows in rows_of(Prepared(examples, self._form(examples)), batch_size):
                yield [rows]
            return
        opened = tokenizer_of(self.inputs.tokenizer)
        if opened is None:
            raise DataError("an ONNX file needs its tokenizer for texts", ["--tokenizer FOLDER"])
        reader = TextReader(opened, self.session.document)
        names = None
        if self.path is not None:
            reader.prompts["program"], names = reader.prompt_of(self.path), ["program"]
        texts = list(examples.inputs)
        for start in range(0, len(texts), batch_size):
            yield reader.inputs(texts[start : start + batch_size], names)

    def _form(self, examples: Examples) -> Form:
        spec = self.session.inputs[0]
        if examples.kind == "image":
            limits = self.session.contract.range
            if limits is None:
                raise DataError(
                    "the program does not say in which range the model takes images",
                    ["give arrays", "predict with the folder of its run"],
                )
            return ImageForm.of(spec, limits)
        if examples.kind == "audio":
            rate = self.inputs.sample_rate
            if rate is None or len(spec.shape) != 2:
                raise DataError(
                    f"an ONNX file does not say how audio becomes {spec}",
                    ["predict with the folder of its run", "--sample-rate, for plain waveforms"],
                )
            size = spec.shape[1]
            return AudioForm(rate, size if isinstance(size, int) else 0)
        return ArrayForm(spec.dtype.is_floating_point)


class RunLabeler(Labeler):
    """A finished run, computed by PyTorch."""

    def __init__(
        self, folder: RunFolder, program: Path | None, examples: Examples, no_cache: bool
    ) -> None:
        self.session = trained_session(folder, examples, no_cache, program)

    def answers(self, examples: Examples, batch_size: int) -> Iterator[Answer]:
        """Yield probabilities, or numbers where the labels of training were numbers."""
        session, task = self.session, self.session.task
        names = [*session.target.labels] or [str(n) for n in range(session.target.classes)]
        for batch in self._batches(examples, batch_size):
            with torch.no_grad():
                outputs = task(**batch) if isinstance(batch, dict) else task(batch)
            if session.configuration.train.loss in NUMERIC:
                yield from ({"value": float(row)} for row in outputs.flatten())
                continue
            for row in outputs.float().softmax(1).tolist():
                pairs = sorted(zip(names, row, strict=True), key=lambda pair: -pair[1])
                yield dict(pairs)

    def _batches(self, examples: Examples, batch_size: int) -> Iterator[Any]:
        if examples.kind != "text":
            yield from rows_of(Prepared(examples, self.session.form), batch_size)
            return
        texts = list(examples.inputs)
        for start in range(0, len(texts), batch_size):
            yield self.session.task.encode(texts[start : start + batch_size])


def rows_of(data: Prepared, batch_size: int) -> Iterator[torch.Tensor]:
    """Yield batches of examples in order; one of another shape begins a new batch.

    Raises:
        DataError: an example cannot be read.
    """
    rows: list[torch.Tensor] = []
    for number in range(len(data)):
        row = data.inputs(number)
        if rows and (len(rows) == batch_size or row.shape != rows[0].shape):
            yield torch.stack(rows)
            rows = []
        rows.append(row)
    yield torch.stack(rows)
