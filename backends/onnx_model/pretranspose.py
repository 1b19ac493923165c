"""Weights that are only read transposed, stored transposed.

A runtime transposes them when it loads a file, into a copy of its own: sessions that read the same
weights from the same memory would share none of them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from graphprog.backends.onnx_model.translate import PROGRAM


class Pretranspose(ir.passes.InPlacePass):
    """Replace transposed weights of the source by weights that are stored transposed.

    Args:
        also_shared: also weights that something else reads as they are; these are then there twice.
    """

    def __init__(self, also_shared: bool = False) -> None:
        super().__init__()
        self.also_shared = also_shared

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite; tensors may be large, so they are transposed when they are written."""
        modified = False
        for node in list(model.graph):
            if self._applies(model, node):
                _pretranspose(model, node)
                modified = True
        RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified)

    def _applies(self, model: ir.Model, node: ir.Node) -> bool:
        weight = node.inputs[0] if node.op_type == "Transpose" else None
        if weight is None or not _is_source(model, weight) or node.outputs[0].is_graph_output():
            return False
        return self.also_shared or len(weight.uses()) == 1


def _pretranspose(model: ir.Model, node: ir.Node) -> None:
    weight = node.inputs[0]
    assert weight is not None
    tensor = weight.const_value
    assert tensor is not None
    sizes = tensor.shape.numpy()
    order = tuple(node.attributes.get_ints("perm", [*reversed(range(len(sizes)))]))
    name = f"{weight.name}.transposed.{''.join(map(str, order))}"
    if name not in model.graph.initializers:
        transposed = ir.LazyTensor(
            functools.partial(_transposed, tensor, order),
            dtype=tensor.dtype,
            shape=ir.Shape(sizes[axis] for axis in order),
            name=name,
        )
        model.graph.register_initializer(ir.val(name, const_value=transposed))
    ir.convenience.replace_all_uses_with(node.outputs[0], model.graph.initializers[name])


def _transposed(tensor: ir.TensorProtocol, order: Sequence[int]) -> ir.TensorProtocol:
    return ir.tensor(np.ascontiguousarray(tensor.numpy().transpose(order)))


def _is_source(model: ir.Model, value: ir.Value) -> bool:
    name = value.name or ""
    own = model.graph.initializers.get(name) is value and value.const_value is not None
    return own and not name.startswith(PROGRAM) and not value.is_graph_output()
