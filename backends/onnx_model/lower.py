"""From an exported program to the ONNX model that is written: translation and passes over it."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx_ir as ir
from onnxscript.optimizer import optimize_ir
from torch.export import ExportedProgram

from graphprog.backends.onnx_model.pretranspose import Pretranspose
from graphprog.backends.onnx_model.rule_matching import first_operation_decides
from graphprog.backends.onnx_model.translate import MAX_BYTES, PROGRAM, translate
from graphprog.backends.onnx_model.zero_padding import KeepZeroPadding
from graphprog.errors import BackendError
from graphprog.ir.inputs import InputSpec

_LARGE = 512 * 512
"""Numbers in a constant that is not worth its room, unless it is the program's."""

_SCOPES = "pkg.torch.onnx.name_scopes"
_KEPT = (_SCOPES, "pkg.torch.onnx.class_hierarchy", "namespace")


def lower_program(
    program: ExportedProgram,
    inputs: Sequence[InputSpec],
    outputs: Sequence[str],
    opset: int | None = None,
    overridable: bool = False,
) -> ir.Model:
    """Make the ONNX model of an exported program, without metadata.

    Args:
        program: as for :func:`translate`.
        inputs: likewise.
        outputs: likewise.
        opset: likewise.
        overridable: as for :func:`optimize`.

    Raises:
        BackendError: no translation, no such opset, or operations outside of the standard.
    """
    model = translate(program, inputs, outputs, opset)
    with first_operation_decides():
        optimize(model, overridable)
    ir.passes.Sequential(Pretranspose(), KeepZeroPadding(), NameNodes())(model)
    refuse_foreign_operators(model)
    return model


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


class NameNodes(ir.passes.InPlacePass):
    """Put the module path before every node's name; drop what concerns only the exporter."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rename."""
        model.graph.metadata_props.clear()
        for node in model.graph.all_nodes():
            for key in set(node.metadata_props).difference(_KEPT):
                del node.metadata_props[key]  # stack traces tell of the machine, and are long
            path = module_path(node)
            if path:
                node.name = f"{path}/{(node.name or node.op_type).removeprefix('node_')}"
        return ir.passes.PassResult(model, modified=True)


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
