"""Making the ONNX model: translation, folding, names, metadata."""

from __future__ import annotations

import ast
import logging
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx_ir as ir
import torch
from onnx_ir.passes.common import OutputFixPass
from onnxscript.optimizer import optimize_ir
from torch.export import ExportedProgram

from graphprog.errors import BackendError
from graphprog.ir.inputs import InputSpec, batch_axis

PROGRAM = "program."
BATCH = "batch"
MAX_BYTES = 2**31 - 2**20
"""What one ONNX file can hold: protobuf ends at 2 GiB, and the graph itself needs some."""

_LARGE = 512 * 512
"""Numbers in a constant that is not worth its room, unless it is the program's."""

_SCOPES = "pkg.torch.onnx.name_scopes"
_KEPT = (_SCOPES, "pkg.torch.onnx.class_hierarchy", "namespace")


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
        with _quiet_exporter():
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


def optimize(model: ir.Model, overridable: bool) -> None:
    """Fold constants and fuse operations, in place.

    Args:
        model: what to optimize.
        overridable: keep every ``program.*`` tensor under its name, as an initializer that is also
            an input, and fold nothing that depends on it. Otherwise whatever depends on the
            program and on no input is folded, of any size.
    """
    if overridable:
        with _unknown_values(model):
            optimize_ir(model)
        return
    from_program = _reachable(model, list(_program_values(model).values()))

    def wanted(node: ir.Node) -> bool | None:
        if from_program.intersection(node.outputs):
            return True
        return False if any(_is_large(value) for value in node.outputs) else None

    # the limit would hold for what is wanted too, so that what is not is refused by name
    optimize_ir(model, should_fold=wanted, output_size_limit=MAX_BYTES)


def _is_large(value: ir.Value) -> bool:
    shape = value.shape
    sizes = [] if shape is None else [size for size in shape if isinstance(size, int)]
    return shape is not None and len(sizes) == len(shape) and math.prod(sizes) > _LARGE


def _program_values(model: ir.Model) -> dict[str, ir.Value]:
    values = model.graph.initializers
    return {name: value for name, value in values.items() if name.startswith(PROGRAM)}


def _reachable(model: ir.Model, values: Sequence[ir.Value]) -> set[ir.Value]:
    found = set(values)
    for node in model.graph:  # in topological order
        if found.intersection(value for value in node.inputs if value is not None):
            found.update(node.outputs)
    return found


@contextmanager
def _unknown_values(model: ir.Model) -> Iterator[None]:
    """Make the program's tensors plain inputs inside the block, so that nothing can use them."""
    values = _program_values(model)
    tensors = {name: value.const_value for name, value in values.items()}
    for name, value in values.items():
        del model.graph.initializers[name]
        value.const_value = None
        model.graph.inputs.append(value)
    yield
    for name, value in values.items():
        value.const_value = tensors[name]
        model.graph.register_initializer(value)


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


def name_nodes(model: ir.Model) -> None:
    """Put the module path in front of every node's name; drop what concerns only the exporter."""
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        for key in set(node.metadata_props).difference(_KEPT):
            del node.metadata_props[key]  # stack traces tell of the machine, and are long
        path = module_path(node)
        if path:
            node.name = f"{path}/{(node.name or node.op_type).removeprefix('node_')}"


def module_path(node: ir.Node) -> str:
    """Path of the innermost module a node comes from, such as ``program.additive``."""
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    return next((scope for scope in reversed(scopes[:-1]) if scope), "")


def refuse_foreign_operators(model: ir.Model) -> None:
    """Refuse operations that are not of the standard domain.

    Raises:
        BackendError: names all of them.
    """
    foreign = {
        f"{node.domain}::{node.op_type}"
        for node in model.graph.all_nodes()
        if node.domain not in ("", "ai.onnx")
    }
    if foreign or model.functions:
        names = sorted(foreign | {f"{f.domain}::{f.name}" for f in model.functions.values()})
        raise BackendError(f"operations outside of the ONNX standard: {', '.join(names)}")
