"""Metadata of a training step file, besides the document of every deployed file."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import torch

from graphprog.backends.onnx_model.metadata import KEY
from graphprog.backends.onnx_training.layout import Layout
from graphprog.compiler.merge_reparameterization import merge_reparameterization
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import FileError
from graphprog.io import artifact
from graphprog.io.saving import document_of
from graphprog.train.optimizers import Optimizer
from graphprog.utils.json import parse_json

STEP_KEY = f"{KEY}.step"
PROGRAM_KEY = f"{KEY}.file"
VERSION = 1
_BROKEN = ["export the step again: this file is damaged"]


@dataclasses.dataclass(frozen=True)
class StepFile:
    """A training step and the program that it begins with.

    Attributes:
        layout: names of the inputs and outputs of a step.
        lr: learning rate that the optimizer was described with.
        tensors: of the ordinary program file that is inside.
        document: of that file.
    """

    layout: Layout
    lr: float
    tensors: Mapping[str, torch.Tensor]
    document: Mapping[str, Any]


def entries(
    task: ReprogrammedModel, layout: Layout, loss: str, optimizer: Optimizer
) -> dict[str, str]:
    """The metadata of a step file: names, settings, and the program as an ordinary file."""
    whole = merge_reparameterization(task, resume=True)
    tensors = whole.program_state()
    data = artifact.encoded(tensors, document_of(whole, tensors))
    step = {
        "version": VERSION,
        "layout": dataclasses.asdict(layout),
        "optimizer": optimizer.settings(),
        "loss": loss,
    }
    return {STEP_KEY: json.dumps(step), PROGRAM_KEY: base64.b64encode(data).decode("ascii")}


def read_entries(metadata: Mapping[str, str]) -> StepFile:
    """Inverse of :func:`entries`.

    Raises:
        FileError: the file holds no step, or one that is damaged or of a later version.
    """
    if STEP_KEY not in metadata or PROGRAM_KEY not in metadata:
        raise FileError(
            "it holds no training step",
            [
                "gp.backends.onnxruntime.export_training(task, path)",
                "gp.backends.onnxruntime.Session(path), which runs a task",
            ],
        )
    try:
        step = parse_json(metadata[STEP_KEY], "step")
        if step["version"] != VERSION:
            raise FileError(f"step of version {step['version']!r:.40}, this reads {VERSION}")
        names = {field.name: step["layout"][field.name] for field in dataclasses.fields(Layout)}
        if not all(isinstance(name, str) for listed in names.values() for name in listed):
            raise TypeError("names are texts")
        layout = Layout(**{key: tuple(listed) for key, listed in names.items()})
        lr = float(step["optimizer"]["lr"])
        data = base64.b64decode(metadata[PROGRAM_KEY], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"its step cannot be read: {error}", _BROKEN) from error
    tensors, document = artifact.decoded(data)
    if missing := {*layout.counted, *layout.trained, *layout.updated}.difference(tensors):
        raise FileError(f"its program lacks {', '.join(sorted(missing))}", _BROKEN)
    return StepFile(layout, lr, tensors, document)
