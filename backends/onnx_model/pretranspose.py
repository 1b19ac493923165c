"""Weights that a graph turns round, stored as they are multiplied with.

A runtime turns them when it loads a file, into a copy of its own: sessions that read the same
weights from the same memory would share none of them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from graphprog.backends.onnx_model.translate import PROGRAM


def turn_weights(model: ir.Model, also_shared: bool = False) -> None:
    """Replace transposed weights of the source by weights that need not be transposed, in place.

    Args:
        model: its tensors may be large: they are turned when they are written.
        also_shared: also weights that something else reads as they are; these are then there twice.
    """
    for node in list(model.graph):
        weight = node.inputs[0] if node.op_type == "Transpose" else None
        if weight is None or not _is_source(model, weight) or node.outputs[0].is_graph_output():
            continue
        if len(weight.uses()) > 1 and not also_shared:
            continue
        tensor = weight.const_value
        assert tensor is not None
        sizes = tensor.shape.numpy()
        order = tuple(node.attributes.get_ints("perm", [*reversed(range(len(sizes)))]))
        name = f"{weight.name}.turned.{''.join(map(str, order))}"
        if name not in model.graph.initializers:
            shape = ir.Shape(sizes[axis] for axis in order)
            turned = ir.LazyTensor(
                functools.partial(_turned, tensor, order),
                dtype=tensor.dtype,
                shape=shape,
                name=name,
            )
            model.graph.register_initializer(ir.val(name, const_value=turned))
        ir.convenience.replace_all_uses_with(node.outputs[0], model.graph.initializers[name])
    RemoveUnusedNodesPass()(model)


def _turned(tensor: ir.TensorProtocol, order: Sequence[int]) -> ir.TensorProtocol:
    return ir.tensor(np.ascontiguousarray(tensor.numpy().transpose(order)))


def _is_source(model: ir.Model, value: ir.Value) -> bool:
    name = value.name or ""
    own = model.graph.initializers.get(name) is value and value.const_value is not None
    return own and not name.startswith(PROGRAM) and not value.is_graph_output()
