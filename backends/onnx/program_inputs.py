"""Programs that are not in the file: their tensors are inputs of every call."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import torch

from graphprog.backends.onnx_model.translate import PROGRAM


def program_as_inputs(
    model: ir.Model, state: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Make the tensors of a saved program inputs without a default, and the only further inputs.

    Returns:
        Those that the model has, by name.
    """
    graph = model.graph
    values = {name: v for name, v in graph.initializers.items() if name.startswith(PROGRAM)}
    for name, value in values.items():
        if name in state:
            del graph.initializers[name]
            value.const_value = None
        else:
            graph.inputs.remove(value)
    return {name: tensor for name, tensor in state.items() if name in values}
