"""The program of a configuration, for its model and data."""

from __future__ import annotations

from typing import Any

import torch

from graphprog.cli.config.schema import Configuration
from graphprog.cli.data.classes import NUMERIC, classes_of, numbered, numbers
from graphprog.cli.data.examples import Examples
from graphprog.cli.data.images import ImageForm
from graphprog.cli.data.prepare import Form, Prepared
from graphprog.compiler.program import Contract, Program
from graphprog.errors import ProgramError
from graphprog.ir.graph import Graph
from graphprog.sources.factory import attribute_of
from graphprog.sources.model_name import FACTORY
from graphprog.sources.reprogram import program_of
from graphprog.sources.target_data import TargetData
from graphprog.spec.registry import parse_spec


def described(configuration: Configuration, examples: Examples, form: Form) -> TargetData:
    """Return what training examples say of the task: shape of an example, and classes.

    Raises:
        DataError: their labels are not classes.
    """
    shape: tuple[int, ...] = ()
    if isinstance(form, ImageForm):
        shape = form.shape
    elif examples.kind != "text":
        shape = tuple(Prepared(examples, form).inputs(0).shape)
    if configuration.train.loss in NUMERIC:
        return TargetData(shape, 1, ())
    classes = classes_of(examples, configuration.data.labels)
    return TargetData(shape, len(classes), classes)


def targets_of(configuration: Configuration, examples: Examples, data: TargetData) -> torch.Tensor:
    """Return the labels of examples as training takes them.

    Raises:
        DataError: one is not a class of the training data, or not a number.
    """
    if configuration.train.loss in NUMERIC:
        return numbers(examples)
    return numbered(examples, data.labels)


def decided(configuration: Configuration, graph: Graph, data: TargetData, form: Form) -> Program:
    """Return the program of a configuration.

    Raises:
        ProgramError: the method does not fit the model.
    """
    method = configuration.method
    if method.program:
        return _required(parse_spec(method.program), "method.program")
    name = method.name or "blm"
    if FACTORY.fullmatch(name):
        return _required(attribute_of(name)(graph, data), name)
    return program_of(
        graph, data, name, method.options, _contract(configuration, graph, data, form)
    )


def _contract(
    configuration: Configuration, graph: Graph, data: TargetData, form: Form
) -> Contract | None:
    """Return the contract where the configuration says it, or nothing says it of images."""
    section = configuration.data
    known = {"mean", "std"} <= graph.hints.keys()
    if not section.mean and (known or not isinstance(form, ImageForm)):
        return None
    mean, std = section.mean or [0.0], section.std or [1.0]
    return Contract(space="unit", mean=tuple(mean), std=tuple(std), labels=data.labels)


def _required(made: Any, place: str) -> Program:
    if not isinstance(made, Program):
        raise ProgramError(f"{place} is a {type(made).__name__}, not a gp.Program")
    return made
