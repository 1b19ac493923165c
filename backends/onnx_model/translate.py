"""An exported program as an ONNX model, operation by operation, with its names."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy

import onnx_ir as ir
import torch
from onnx_ir.passes.common import OutputFixPass
from torch.export import ExportedProgram
from torch.onnx._internal.exporter._registration import ONNXRegistry

from graphprog.errors import BackendError
from graphprog.ir.inputs import InputSpec, batch_axis

PROGRAM = "program."
BATCH = "batch"
MAX_BYTES = 2**31 - 2**20
"""What one ONNX file can hold: protobuf ends at 2 GiB, and the graph itself needs some."""


def translate(
    program: ExportedProgram,
    inputs: Sequence[InputSpec],
    outputs: Sequence[str],
    opset: int | None,
) -> ir.Model:
    """Translate an exported program, operation by operation, without optimizing.

    Args:
        program: what to translate; shares its tensors with the result.
        inputs: for the names of inputs and of axes that vary.
        outputs: names of the outputs.
        opset: version of the operator set; the exporter's own choice where None.

    Raises:
        BackendError: no translation, or no such opset.
    """
    try:
        with _quiet_exporter(), _quick_exporter():
            translated = torch.onnx.export(
                program,
                dynamo=True,
                optimize=False,
                verbose=False,
                opset_version=opset,
            )
    except Exception as error:
        raise _untranslatable(error) from error
    assert translated is not None
    model = translated.model
    if opset is not None and model.opset_imports[""] != opset:
        raise BackendError(
            f"opset {opset} cannot be had for this graph: the exporter made "
            f"{model.opset_imports['']}",
            ["leave opset out", f"opset={model.opset_imports['']}"],
        )
    _rename(model, inputs, outputs)
    return model


@contextmanager
def _quick_exporter() -> Iterator[None]:
    """Read the exporter's translations once a process.

    The exporter parses its 500 translations anew at every export, which is 40 % of the time of
    a small one. Each export gets a copy, for a caller of torch's own may add translations.
    """
    before = ONNXRegistry.__dict__["from_torchlib"]
    ONNXRegistry.from_torchlib = staticmethod(_registry)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = before  # type: ignore[method-assign]


def _registry(opset_version: int) -> ONNXRegistry:
    known = _KNOWN.get(opset_version)
    if known is None:
        known = _KNOWN[opset_version] = _READ(opset_version=opset_version)
    registry = copy(known)
    registry.functions = {name: list(functions) for name, functions in known.functions.items()}
    return registry


_KNOWN: dict[int, ONNXRegistry] = {}
_READ = ONNXRegistry.from_torchlib


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without what the exporter says about itself and about libraries that are not installed."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        registration.setLevel(level)


def _untranslatable(error: Exception) -> BackendError:
    causes = [error]
    while causes[-1].__cause__ is not None and isinstance(causes[-1].__cause__, Exception):
        causes.append(causes[-1].__cause__)
    reasons = [next(iter(str(cause).strip().splitlines()), "")[:300] for cause in reversed(causes)]
    return BackendError(
        f"the graph has no translation to ONNX: {reasons[0] or type(error).__name__}",
        [
            "replace the operation that is named in the source model, and capture it again",
            "update torch and onnxscript",
            "export with graphprog.backends.pytorch, which runs every captured graph",
        ],
    )


def _rename(model: ir.Model, inputs: Sequence[InputSpec], outputs: Sequence[str]) -> None:
    OutputFixPass()(model)  # an input that is returned must not take the output's name
    values = [*model.graph.inputs, *model.graph.outputs]
    for value, name in zip(values, [*(spec.name for spec in inputs), *outputs], strict=True):
        value.name = name
    _rename_axes(model, inputs)


def _rename_axes(model: ir.Model, inputs: Sequence[InputSpec]) -> None:
    """Call the batch ``batch``, and other varying axes by the letters that the graph prints."""
    first = batch_axis(inputs)
    names: dict[str, str] = {}
    for value, spec in zip(model.graph.inputs, inputs, strict=True):
        assert value.shape is not None
        for dimension, letter in zip(value.shape, spec.shape, strict=True):
            symbol = dimension.value if isinstance(dimension, ir.SymbolicDim) else None
            if symbol is not None and isinstance(letter, str):
                names[symbol] = BATCH if letter == first else letter
    pattern = re.compile(r"\b[A-Za-z_]\w*\b")
    values = {value for node in model.graph.all_nodes() for value in node.outputs}
    for value in values.union(model.graph.inputs):
        if value.shape is not None and any(isinstance(d, ir.SymbolicDim) for d in value.shape):
            value.shape = ir.Shape(
                pattern.sub(lambda found: names.get(found[0], found[0]), d.value)
                if isinstance(d, ir.SymbolicDim) and d.value is not None
                else d
                for d in value.shape
            )
