"""The checks of a captured family; each returns a remark or raises."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import graphprog as gp
from graphprog.backends import onnx
from graphprog.backends.onnxruntime import Session
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import BackendError
from sweep.concatenation import early, middle, none
from sweep.family import CAPTURED
from sweep.outcome import RefusedError, WrongError
from sweep.subject import Subject, compared, gradients, hooked, require, results, tensors
from tests.support.oracle import changed

Check = Callable[[Subject], str]


def disabled(subject: Subject) -> str:
    """A disabled program is the source, bit for bit, and the graph is the model."""
    task = subject.compile(_somewhere(subject))
    arguments = subject.arguments()
    expected = subject.source(**arguments)
    with task.disabled():
        found = results(task, arguments)
    return compared(expected, found, "graph against model")


def _somewhere(subject: Subject) -> gp.Additive:
    """A program at the first place that can carry one."""
    names = [*subject.blocks()[:1], *subject.towers("tokens")[:1], *_float_inputs(subject)[:1]]
    require(names, "no place for a program")
    return gp.Additive(at=names[0], value=gp.Learnable("normal", 0.1))


def _float_inputs(subject: Subject) -> list[str]:
    table = subject.graph.interfaces()
    return [
        interface.key
        for interface in table.values()
        if interface.kind == "input" and interface.dtype.is_floating_point
    ]


def additive_input(subject: Subject) -> str:
    """A pattern on the first input of floats."""
    keys = _float_inputs(subject)
    require(keys, "no input of floats")
    task = subject.compile(gp.Additive(at=keys[0], value=gp.Learnable("normal", 0.1)))
    arguments = subject.arguments()
    name = keys[0].removeprefix("input:")
    shifted = {**arguments, name: arguments[name] + pattern(task)}
    return compared(subject.source(**shifted), gradients(task, arguments), "against the model")


def pattern(task: ReprogrammedModel) -> torch.Tensor:
    """The values of a program of one part."""
    return next(iter(task.program.parameters())).detach()


def additive_first(subject: Subject) -> str:
    """A pattern after the first block."""
    require(subject.blocks(), "no repeated blocks")
    return _additive_hidden(subject, subject.blocks()[0])


def additive_last(subject: Subject) -> str:
    """A pattern after the last block."""
    require(subject.blocks(), "no repeated blocks")
    return _additive_hidden(subject, subject.blocks()[-1])


def _additive_hidden(subject: Subject, at: str) -> str:
    task = subject.compile(gp.Additive(at=at, value=gp.Learnable("normal", 0.1)))
    arguments = subject.arguments()
    found = gradients(task, arguments)
    change = {hooked(subject, at): lambda value: value + pattern(task)}
    torch.manual_seed(0)
    with torch.no_grad():
        expected = tensors(changed(subject.case.model, change, (), arguments))
    return compared(expected, found, "against hooks")


def exported(subject: Subject) -> str:
    """ONNX, compared in ONNX Runtime at the size of capture and at another."""
    task = subject.compile(_somewhere(subject))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.onnx"
        try:
            onnx.export(task, path, inputs=_flat(task, subject.case.call(*CAPTURED)))
        except BackendError as error:
            if "does not compute" in error.what:
                raise WrongError(error.what) from error
            raise RefusedError(error.what) from error
        inputs = _flat(task, subject.arguments())
        found = [torch.from_numpy(array) for array in Session(path).evaluate(inputs)]
    with torch.no_grad():
        expected = tensors(task(*inputs))
    return compared(expected, found, "ONNX Runtime")


def _flat(task: ReprogrammedModel, arguments: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    return tuple(task.graph.call_spec.bind((), arguments))


CHECKS: Mapping[str, Check] = {
    "disabled": disabled,
    "additive: input": additive_input,
    "additive: first block": additive_first,
    "additive: last block": additive_last,
    "insertion: none": none,
    "insertion: early": early,
    "insertion: middle": middle,
    "ONNX": exported,
}
"""In order; ``build`` and ``capture`` come before all."""
