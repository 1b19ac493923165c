"""A check of the input's range inside an ONNX file, for runtimes that know no contract."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphprog.backends.onnx_model.translate import BATCH
from graphprog.compiler.data_checks import SLACK
from graphprog.errors import BackendError

_NAME = "check_range"


def check_range_inside(model: ir.Model, bounds: tuple[float, float] | None) -> None:
    """Make every output NaN in the rows whose first input is outside of its range, in place.

    ONNX has no operation that stops a run. Values that are not finite are outside of any range.

    Args:
        model: the model; its axis of rows is called ``batch``.
        bounds: the range of the contract.

    Raises:
        BackendError: there is no range, or an output is not one float entry per row.
    """
    if bounds is None:
        raise BackendError(
            "check_range=True needs a range, and the contract of the program has none",
            ["use Contract(range=(low, high)) or Contract(space='unit', ...) in the program"],
        )
    graph = model.graph
    value = graph.inputs[0]
    others = [out.name for out in graph.outputs if not _has_rows(out) or not _is_float(out)]
    if others or not _has_rows(value) or not _is_float(value):
        name = others[0] if others else value.name
        raise BackendError(
            f"check_range=True needs one entry of floats per row, which {name} does not have",
            ["leave check_range out, and check the range before each run"],
        )
    low, high = bounds
    above = _call(graph, "GreaterOrEqual", [value, _constant(graph, "low", low - SLACK, value)])
    below = _call(graph, "LessOrEqual", [value, _constant(graph, "high", high + SLACK, value)])
    inside = _call(graph, "And", [above, below])
    numbers = _call(graph, "Cast", [inside], to=ir.DataType.FLOAT)
    rows = _call(graph, "Flatten", [numbers], axis=1)
    axes = _initializer(graph, "axes", np.array([1], np.int64))
    least = _call(graph, "ReduceMin", [rows, axes], keepdims=0)
    valid = _call(graph, "Cast", [least], to=ir.DataType.BOOL)
    for number, out in enumerate(graph.outputs):
        graph.outputs[number] = _masked(graph, out, valid, number)


def _masked(graph: ir.Graph, out: ir.Value, valid: ir.Value, number: int) -> ir.Value:
    """Return a value in place of an output, with its name."""
    assert out.shape is not None
    name, shape = out.name, out.shape
    if len(shape) > 1:
        axes = np.arange(1, len(shape), dtype=np.int64)
        valid = _call(graph, "Unsqueeze", [valid, _initializer(graph, f"further_{number}", axes)])
    out.name = f"{name}_unchecked"
    nan = _constant(graph, f"nan_{number}", float("nan"), out)
    masked = _call(graph, "Where", [valid, out, nan])
    masked.name, masked.shape, masked.type = name, shape, out.type
    return masked


def _call(graph: ir.Graph, kind: str, inputs: list[ir.Value], **attributes: int) -> ir.Value:
    node = ir.node(kind, inputs, attributes=dict(attributes))
    node.name = f"{_NAME}/{kind}_{len(graph)}"
    node.outputs[0].name = f"{_NAME}_{len(graph)}"
    graph.append(node)
    return node.outputs[0]


def _constant(graph: ir.Graph, name: str, number: float, like: ir.Value) -> ir.Value:
    assert like.dtype is not None
    return _initializer(graph, name, np.array(number, like.dtype.numpy()))


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=f"{_NAME}_{name}")
    value = ir.Value(
        name=tensor.name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def _has_rows(value: ir.Value) -> bool:
    first = value.shape[0] if value.shape else None
    return isinstance(first, ir.SymbolicDim) and first.value == BATCH


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()
