"""Zeros padded before a max pooling, kept apart from its own padding in ONNX files."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


class KeepZeroPadding(ir.passes.InPlacePass):
    """Pad before every ``MaxPool`` with a number next to zero in place of zero.

    ONNX Runtime makes a padding with zeros part of a ``MaxPool`` after it, whose own padding
    never is the maximum: wrong wherever all of a window is negative. It leaves other numbers.
    What differs is less than 1e-37, and 6e-8 in float16, the least step that it has.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite."""
        found = [node for node in model.graph.all_nodes() if _pads_zeros(node) and _is_pooled(node)]
        for node in found:
            _pad_with_least(node)
        return ir.passes.PassResult(model, bool(found))


def _pad_with_least(node: ir.Node) -> None:
    dtype = node.outputs[0].dtype
    assert dtype is not None
    name = f"{node.outputs[0].name}_least"
    least = ir.tensor(np.array(_next_to_zero(dtype), dtype.numpy()), name=name)
    value = ir.Value(name=name, shape=ir.Shape(()), type=ir.TensorType(dtype), const_value=least)
    assert node.graph is not None
    node.graph.register_initializer(value)
    node.resize_inputs(max(3, len(node.inputs)))
    node.replace_input_with(2, value)


def _next_to_zero(dtype: ir.DataType) -> float:
    """The least positive number of a type that float32 has as a normal one, so never as zero."""
    zero, one = (dtype.numpy().type(number) for number in (0, 1))
    return max(float(np.nextafter(zero, one)), float(np.finfo(np.float32).tiny))


def _pads_zeros(node: ir.Node) -> bool:
    """Whether a node pads floats with a zero that is known."""
    mode = node.attributes.get("mode")
    if node.op_type != "Pad" or (mode is not None and mode.as_string() != "constant"):
        return False
    dtype = node.outputs[0].dtype
    filler = node.inputs[2] if len(node.inputs) > 2 else None
    if filler is not None and (filler.const_value is None or filler.const_value.numpy().any()):
        return False
    return dtype is not None and dtype.is_floating_point()


def _is_pooled(node: ir.Node) -> bool:
    return any(user.op_type == "MaxPool" for user, _ in node.outputs[0].uses())
