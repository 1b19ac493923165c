"""From a task to an exported program, the form that the lowerings start from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram

from graphprog.backends.parity.report import Inputs
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import BackendError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.inputs import InputSpec, inputs_of


def exported(
    task: ReprogrammedModel, example: Inputs | None = None, outputs: tuple[str, ...] | None = None
) -> ExportedProgram:
    """Export the rewritten graph; its tensors are shared and keep their names.

    Args:
        task: what to export; it is not changed.
        example: inputs with a batch of 2 or more; random ones where None.
        outputs: names of graph nodes to return in place of the task's tensor outputs.

    Returns:
        A program whose parameters are called ``source.*`` and ``program.*``, with the axes that
        vary in the graph still varying.

    Raises:
        BackendError: the graph cannot be exported.
    """
    given = task.input_example(2) if example is None else example
    names = outputs if outputs is not None else output_nodes(task)
    return exported_graph(task.graph, given, names, task.device)


def exported_graph(
    graph: Graph, example: Inputs, outputs: tuple[str, ...], device: torch.device
) -> ExportedProgram:
    """Export a graph; see :func:`exported`.

    Args:
        graph: what to export.
        example: its inputs in order, with 2 rows or more.
        outputs: names of the nodes to return.
        device: where its weights are.

    Raises:
        BackendError: it cannot be exported.
    """
    return export_module(
        graph.executable(outputs, device), example, inputs_of(graph), device, graph.name
    )


def export_module(
    module: nn.Module,
    example: Sequence[torch.Tensor],
    specs: Sequence[InputSpec],
    device: torch.device,
    name: str,
) -> ExportedProgram:
    """Export a module that runs a rewritten graph.

    Args:
        module: what to export.
        example: its inputs in order; axes that vary have a length of 2 or more.
        specs: what they are called, and which axes vary.
        device: where its weights are.
        name: of the source, for messages.

    Raises:
        BackendError: it cannot be exported.
    """
    shapes = tuple(
        {axis: Dim.DYNAMIC for axis, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in specs
    )
    try:
        return torch.export.export(
            module,
            # views would be exported with what is known of the tensors they are views of
            tuple(value.to(device).contiguous().detach().clone() for value in example),
            # what comes as *args is one argument to the exporter
            dynamic_shapes=shapes if isinstance(module, fx.GraphModule) else (shapes,),
            strict=False,
        )
    except BackendError:
        raise
    except Exception as error:
        raise BackendError(
            f"{name}: the rewritten graph cannot be exported: "
            f"{type(error).__name__}: {str(error).strip()[:600]}",
            ["give inputs=(...) of sizes that the model runs on, with 2 rows or more"],
        ) from error


def output_nodes(of: ReprogrammedModel | Graph) -> tuple[str, ...]:
    """Nodes of the outputs that are tensors; constants that a model returns need no backend."""
    graph = of if isinstance(of, Graph) else of.graph
    return tuple(node.name for _, node in _tensor_outputs(graph))


def output_names(task: ReprogrammedModel) -> tuple[str, ...]:
    """Names of the outputs that are tensors, in order; one that an input has too gets ``_out``."""
    taken = {spec.name for spec in task.inputs}
    return tuple(
        f"{name}_out" if name in taken else name for name, _ in _tensor_outputs(task.graph)
    )


def _tensor_outputs(graph: Graph) -> list[tuple[str, fx.Node]]:
    named = zip(graph.outputs, graph.output_nodes, strict=True)
    return [
        (name, node)
        for name, node in named
        if isinstance(node, fx.Node) and isinstance(fake_tensor(node), torch.Tensor)
    ]
