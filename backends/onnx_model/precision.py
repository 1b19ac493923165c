"""The source of an ONNX model in fewer bits, in place; the program stays in float32.

Which tensors and operations are the program's is read from their names: ``program.*``.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxruntime.quantization import QuantType, quantize_dynamic

from graphprog.backends.onnx_model.external_data import beside
from graphprog.backends.onnx_model.pretranspose import Pretranspose
from graphprog.backends.onnx_model.translate import PROGRAM
from graphprog.errors import BackendError

_FLOAT16_MAX = float(np.finfo(np.float16).max)

_HALF = frozenset(
    (
        *("Conv", "ConvTranspose", "Gemm", "MatMul"),
        *("Add", "Div", "Mul", "Neg", "Sub", "Where"),
        *("Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu"),
        *("Sigmoid", "Tanh"),
        *("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"),
        *("Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split"),
        *("Squeeze", "Tile", "Transpose", "Unsqueeze"),
    )
)
"""What is computed in half precision: sums of many terms and exponentials are not."""


def is_of_program(node: ir.Node) -> bool:
    """Whether an operation is the program's own, or reads a tensor of the program."""
    names = [node.name, *(value.name for value in node.inputs if value is not None)]
    return any((name or "").startswith(PROGRAM) for name in names)


def linear_in_int8(model: ir.Model) -> ir.Model:
    """Return a model whose linear layers, and look-ups in tables, are in int8.

    Weights have one scale per channel; inputs are quantized at run time. Both are unsigned, with
    zero point 128 for weights: on x86 processors without VNNI instructions, ONNX Runtime adds pairs
    of unsigned times signed products in 16 bits, which saturate, and widens unsigned factors before
    it multiplies them. Convolutions stay in float32: the operation for them has one scale for all
    channels, which ruins depthwise ones, and is slower than float32 on a CPU.

    Args:
        model: in float32; of no use afterwards.
    """
    Pretranspose(also_shared=True)(model)
    _unshare_transposed(model)
    left_out = [node.name for node in model.graph if node.op_type == "Conv" or is_of_program(node)]
    with tempfile.TemporaryDirectory() as folder:  # of more than 2 GiB, files can be read only
        path, to = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        with beside([model], path.parent, path.stem):
            proto = ir.to_proto(model)
        del proto.graph.value_info[:]  # shapes of weights that are transposed would contradict it
        onnx.save(proto, path)
        with _silent():
            quantize_dynamic(
                path,
                to,
                weight_type=QuantType.QUInt8,
                nodes_to_exclude=left_out,
                per_channel=True,
                use_external_data_format=True,
                extra_options={"WeightSymmetric": True},
            )
        found: ir.Model = ir.external_data.load_to_model(ir.load(to))
    return found


def _unshare_transposed(model: ir.Model) -> None:
    """Give linear layers that transpose a weight, and share it with a table, a weight of their own.

    ONNX Runtime transposes the weight itself in place, and the table would be read wrongly.
    """
    for node in model.graph:
        weight = node.inputs[1] if node.op_type == "Gemm" else None
        if weight is None or weight.const_value is None or len(weight.uses()) == 1:
            continue
        if node.attributes.get_int("transB", 0):
            node.replace_input_with(1, _constant(model, node, "own", weight.const_value.numpy()))


@contextmanager
def _silent() -> Iterator[None]:
    talk, silent = logging.getLogger(), logging.getLogger().disabled
    talk.disabled = True  # it advises a preprocessing that changes the model
    try:
        yield
    finally:
        talk.disabled = silent


def store_convolutions_in_int8(model: ir.Model) -> None:
    """Weights of convolutions as int8 with a scale for each output channel, in place.

    They are computed with in float32: runtimes multiply them out when they load the file.
    """

    def stored(node: ir.Node, weight: np.ndarray) -> list[ir.Node]:
        axes = tuple(range(1, weight.ndim))
        scale = np.abs(weight).max(axes, keepdims=True).astype(np.float32) / 127
        scale[scale == 0] = 1
        rounded = np.rint(weight / scale).astype(np.int8)
        cast = ir.node("Cast", [_constant(model, node, "int8", rounded)], {"to": ir.DataType.FLOAT})
        return [cast, ir.node("Mul", [cast.outputs[0], _constant(model, node, "scale", scale)])]

    _store(model, stored, lambda node: node.op_type == "Conv")


def store_in_bfloat16(model: ir.Model) -> None:
    """Weights of the source as bfloat16, in place; they are computed with in float32."""

    def stored(node: ir.Node, weight: np.ndarray) -> list[ir.Node]:
        short = _constant(model, node, "bfloat16", weight.astype(ml_dtypes.bfloat16))
        return [ir.node("Cast", [short], {"to": ir.DataType.FLOAT})]

    _store(model, stored, lambda node: True)


def _store(
    model: ir.Model,
    stored: Callable[[ir.Node, np.ndarray], list[ir.Node]],
    wanted: Callable[[ir.Node], bool],
) -> None:
    """Replace every weight, of two axes or more, that a wanted operation of the source reads."""
    for node in list(model.graph):
        if is_of_program(node) or not wanted(node):
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and _is_weight(model, value):
                assert value.const_value is not None
                nodes = stored(node, value.const_value.numpy())
                result = nodes[-1].outputs[0]
                result.name = f"{value.name}.float32.{node.name}.{index}"
                model.graph.insert_before(node, nodes)
                node.replace_input_with(index, result)
    RemoveUnusedNodesPass()(model)


def _is_weight(model: ir.Model, value: ir.Value) -> bool:
    own = model.graph.initializers.get(value.name or "") is value
    named = (value.name or "").startswith(PROGRAM)
    axes = value.const_value.shape.rank() if value.const_value is not None else 0
    return own and not named and value.dtype is ir.DataType.FLOAT and axes >= 2


def _constant(model: ir.Model, node: ir.Node, kind: str, array: np.ndarray) -> ir.Value:
    count = len(model.graph.initializers)
    tensor = ir.tensor(array, name=f"{node.name}.{kind}.{count}")
    value = ir.val(tensor.name or "", const_value=tensor)
    model.graph.register_initializer(value)
    return value


def compute_in_float16(model: ir.Model) -> None:
    """Operations and weights of the source in half precision, in place.

    Inputs and outputs keep their types, and values are cast where the two precisions meet.

    Raises:
        BackendError: the model has branches or loops.
    """
    if any(len(list(_subgraphs(node))) for node in model.graph):
        raise BackendError(
            "a model with branches or loops is not put into half precision",
            ["capture the source model in float16"],
        )
    halves: dict[ir.Value, ir.Value] = {}  # what is float32, as float16
    for node in list(model.graph):
        if node.op_type not in _HALF or is_of_program(node):
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype is ir.DataType.FLOAT:
                node.replace_input_with(index, _as_half(model, node, value, halves))
        for value in node.outputs:
            if value.dtype is ir.DataType.FLOAT:
                halves[_lowered(model, node, value)] = value
    RemoveUnusedNodesPass()(model)


def _subgraphs(node: ir.Node) -> Iterator[ir.Attr]:
    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return (attribute for attribute in node.attributes.values() if attribute.type in kinds)


def _as_half(
    model: ir.Model, node: ir.Node, value: ir.Value, halves: dict[ir.Value, ir.Value]
) -> ir.Value:
    if value not in halves:
        named = (value.name or "").startswith(PROGRAM)
        if value.const_value is not None and not named and not value.is_graph_input():
            full = value.const_value.numpy()
            finite = np.clip(full, -_FLOAT16_MAX, _FLOAT16_MAX)  # masks hold the least float32
            short = np.where(np.isfinite(full), finite, full).astype(np.float16)
            halves[value] = _constant(model, node, "float16", short)
        else:
            cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT16})
            cast.outputs[0].name = f"{value.name}.float16"
            cast.outputs[0].dtype = ir.DataType.FLOAT16
            model.graph.insert_before(node, cast)
            halves[value] = cast.outputs[0]
    return halves[value]


def _lowered(model: ir.Model, node: ir.Node, value: ir.Value) -> ir.Value:
    """Make a result float16, and have its readers, the outputs among them, read a cast of it."""
    cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT})
    full = cast.outputs[0]
    full.shape, full.dtype, full.name = value.shape, ir.DataType.FLOAT, value.name
    value.name, value.dtype = f"{value.name}.float16", ir.DataType.FLOAT16
    for use in list(value.uses()):
        if use.node is not cast:
            use.node.replace_input_with(use.idx, full)
    for index, output in enumerate(model.graph.outputs):
        if output is value:
            model.graph.outputs[index] = full
    model.graph.insert_after(node, cast)
    return full
