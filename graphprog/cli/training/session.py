"""A run as objects: its model, task and data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from graphprog.cli.config.schema import Configuration
from graphprog.cli.data.audio import AudioForm
from graphprog.cli.data.augment import change_of
from graphprog.cli.data.examples import Examples
from graphprog.cli.data.images import ImageForm
from graphprog.cli.data.prepare import Form, fit_data, form_of
from graphprog.cli.data.splits import Splits, read_splits
from graphprog.cli.models import open_model
from graphprog.cli.training.programs import decided, described, targets_of
from graphprog.cli.training.run_folder import RunFolder
from graphprog.compiler.compile import compile
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import DataError
from graphprog.io.saving import load
from graphprog.sources.target_data import TargetData


@dataclasses.dataclass(frozen=True)
class Session:
    """A model with a program, and what makes examples its inputs.

    Attributes:
        configuration: of the run.
        task: the model with the program, before or after training.
        form: what examples become.
        target: shape and classes of the training data.
    """

    configuration: Configuration
    task: ReprogrammedModel
    form: Form
    target: TargetData

    def data(self, examples: Examples, train: bool = False) -> Any:
        """Return labeled examples as ``fit`` takes them; training images are changed at random.

        Raises:
            DataError: an example or a label does not fit.
        """
        section = self.configuration.data
        changes = [change_of(one.name, one.options) for one in section.augment if train]
        if changes and examples.kind != "image":
            raise DataError(
                f"data.augment changes image files and arrays of bytes; {examples.place} holds "
                f"{examples.kind} examples"
            )
        targets = targets_of(self.configuration, examples, self.target)
        return fit_data(self.task, examples, self.form, targets, changes)

    @property
    def known(self) -> dict[str, Any]:
        """What the training data determined, as JSON values."""
        samples = self.form.samples if isinstance(self.form, AudioForm) else 0
        target = {**dataclasses.asdict(self.target), "shape": list(self.target.shape)}
        return {"target": {**target, "labels": list(self.target.labels)}, "samples": samples}


def new_session(configuration: Configuration, no_cache: bool) -> tuple[Session, Splits]:
    """Capture the model, read the data, and compile the program.

    Raises:
        CaptureError: the model cannot be captured.
        DataError: the data cannot be read, or do not fit.
        ProgramError: the program does not fit.
    """
    splits = read_splits(configuration.data, configuration.seed)
    graph = open_model(configuration.model, no_cache)
    form = form_of(graph, splits.train, configuration.data, configuration.model)
    target = described(configuration, splits.train, form)
    program = decided(configuration, graph, target, form)
    task = compile(graph, program, seed=configuration.seed)
    return Session(configuration, task, form, target), splits


def trained_session(
    folder: RunFolder, examples: Examples, no_cache: bool, program: Path | None = None
) -> Session:
    """Return a finished run, for examples of the kind that it was trained on.

    Args:
        folder: of the run.
        examples: of its kind.
        no_cache: see :func:`open_model`.
        program: another program for the same model.

    Raises:
        FileError: the run is not finished, or its model is another one now.
    """
    configuration, known = folder.read()
    program = program or folder.require_program()
    graph = open_model(configuration.model, no_cache)
    section, samples = configuration.data, int(known.get("samples", 0))
    task = load(program, graph)
    if examples.kind == "image":
        form: Form = ImageForm.of(task.inputs[0], task.spec.contract.range)
    else:
        form = form_of(graph, examples, section, configuration.model, samples)
    target = known["target"]
    data = TargetData(tuple(target["shape"]), target["classes"], tuple(target["labels"]))
    return Session(configuration, task, form, data)
