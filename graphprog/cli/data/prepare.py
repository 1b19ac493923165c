"""Examples as inputs of a task, in a form that training and prediction share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from graphprog.cli.data.audio import AudioForm, extractor_of, waveform
from graphprog.cli.data.augment import Change, changed
from graphprog.cli.data.examples import Examples
from graphprog.cli.data.images import ImageForm
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import DataError
from graphprog.ir.graph import Graph
from graphprog.ir.inputs import InputSpec, inputs_of

_KEPT = 2**30
"""Bytes of examples that are kept in memory; more are read again in every epoch."""


@dataclasses.dataclass(frozen=True)
class ArrayForm:
    """Arrays as they are; whole numbers become floats where the model takes floats.

    Attributes:
        floats: whether the model takes floats.
    """

    floats: bool

    def values(self, array: Any, where: str) -> np.ndarray:
        """Return an array, or that of a ``.npy`` file.

        Raises:
            DataError: the file cannot be read.
        """
        if isinstance(array, Path):
            try:
                array = np.load(array, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise DataError(f"{where}: not a .npy file: {error}") from error
        found = np.asarray(array)
        if self.floats or found.dtype == np.float64:
            return found.astype(np.float32)
        return found if found.dtype == np.bool_ or found.dtype.kind == "f" else found.astype(int)


Form = ImageForm | AudioForm | ArrayForm


def form_of(graph: Graph, examples: Examples, section: Any, model: str, samples: int = 0) -> Form:
    """Return what examples become for a model.

    Args:
        graph: the model.
        examples: those to train on, or of their kind.
        section: the data of a configuration.
        model: name of the model, whose library knows how audio is prepared.
        samples: length of audio, if it is known already.

    Raises:
        DataError: the model takes no such examples.
    """
    spec = inputs_of(graph)[0]
    if examples.kind == "image":
        return _image_form(spec, section)
    if examples.kind == "audio":
        return _audio_form(graph, spec, examples, section, model, samples)
    return ArrayForm(spec.dtype.is_floating_point)


def _image_form(spec: InputSpec, section: Any) -> ImageForm:
    captured = dataclasses.replace(spec, shape=(spec.shape[0], *spec.captured[1:]))
    form = ImageForm.of(captured, None)
    size = section.size
    height, width = (size, size) if isinstance(size, int) else size or (form.height, form.width)
    channels = section.channels or form.channels
    return dataclasses.replace(form, channels=channels, height=height, width=width)


def _audio_form(
    graph: Graph, spec: InputSpec, examples: Examples, section: Any, model: str, samples: int
) -> AudioForm:
    extractor = extractor_of(model)
    rate = section.sample_rate or graph.hints.get("sample_rate")
    if rate is None:
        raise DataError(f"{model}: at which rate does it take audio?", ["data.sample_rate = 16000"])
    known = graph.hints.get("sample_rate", rate)
    if rate != known:
        raise DataError(f"data.sample_rate is {rate}, but {model} takes {known}")
    if len(spec.shape) == 2 and isinstance(spec.shape[1], int):
        samples = spec.shape[1]
    if not samples:
        samples = round(rate * section.seconds) if section.seconds else 0
    if not samples:
        lengths = [
            len(waveform(one, rate, examples.where(n))) for n, one in enumerate(examples.inputs)
        ]
        samples = max(lengths)
    if extractor is None and len(spec.shape) != 2:
        raise DataError(f"{model} takes {spec}, not waveforms [B, S]", ["data.kind of arrays"])
    return AudioForm(int(rate), samples, extractor, spec.name)


class Prepared(Dataset[Any]):
    """Examples read when they are asked for, with random changes of images.

    Attributes:
        targets: labels of all examples.
    """

    def __init__(
        self,
        examples: Examples,
        form: Form,
        targets: torch.Tensor | None = None,
        changes: Sequence[Change] = (),
    ) -> None:
        self.examples = examples
        self.form = form
        self.targets = targets
        self.changes = changes
        self.read: dict[int, np.ndarray] = {}
        self.held = 0

    def __len__(self) -> int:
        return len(self.examples)

    def inputs(self, number: int) -> torch.Tensor:
        """Return the input of the task for an example."""
        item, where = self.examples.inputs[number], self.examples.where(number)
        if self.examples.kind == "ready":
            return torch.as_tensor(item)
        if not isinstance(self.form, ImageForm):
            return torch.from_numpy(self.form.values(item, where))
        pixels = self.read.get(number)
        if pixels is None:
            pixels = self.form.pixels(item, where)
            if self.changes and self.held + pixels.nbytes <= _KEPT:
                self.read[number], self.held = pixels, self.held + pixels.nbytes
        return torch.from_numpy(self.form.values(changed(pixels, self.changes, where)))

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return an example and its label."""
        assert self.targets is not None
        return self.inputs(number), self.targets[number]


def fit_data(
    task: ReprogrammedModel,
    examples: Examples,
    form: Form,
    targets: torch.Tensor,
    changes: Sequence[Change] = (),
) -> Any:
    """Return labeled examples as :func:`graphprog.fit` takes them.

    Raises:
        DataError: an example cannot be read, or the task cannot take it.
    """
    if examples.kind == "text":
        return task.encode(list(examples.inputs)), targets
    data = Prepared(examples, form, targets, changes)
    if examples.kind == "ready" or changes:
        return data
    first = data.inputs(0)
    if first.numel() * first.element_size() * len(data) > _KEPT:
        return data
    return stacked(data), targets


def stacked(data: Prepared) -> torch.Tensor:
    """Return all inputs as one batch.

    Raises:
        DataError: they have different shapes.
    """
    rows = [data.inputs(number) for number in range(len(data))]
    for number, row in enumerate(rows):
        if row.shape != rows[0].shape:
            raise DataError(
                f"{data.examples.where(number)}: has shape {list(row.shape)}, but the first has "
                f"{list(rows[0].shape)}"
            )
    return torch.stack(rows)
