"""Fold batch normalization into the preceding convolution."""

from __future__ import annotations

import dataclasses

import torch
from torch import fx, nn

from graphprog.errors import PassError
from graphprog.ir.graph import Graph
from graphprog.ir.memory.packed import tensor_at
from graphprog.ir.ops import schema_name
from graphprog.ir.weights import Weights, copied_tree
from graphprog.passes.base import Pass
from graphprog.rewriting.editor import Editor
from graphprog.spec.registry import spec

_CONVOLUTIONS = ("aten::conv1d", "aten::conv2d", "aten::conv3d")


@spec("fold-batch-norm")
@dataclasses.dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Scale each convolution's weights by the following batch normalization, and remove it.

    An optimization of a *source*, before any program: the result is a source graph of its own,
    with its own fingerprint, equal to the first up to rounding. The folded weights are new
    tensors; everything else stays shared. Interfaces between the two layers vanish.

    Example:
        >>> folded = gp.passes.FoldBatchNorm()(graph)
        >>> assert torch.allclose(folded(images), graph(images), atol=1e-5)
    """

    def requires(self, graph: Graph) -> None:
        """Refuse a graph that has a program in it."""
        if graph.insertions:
            raise PassError(
                "fold-batch-norm changes the source weights, and this graph has a program in it",
                ["fold the captured graph first, then compile the program into the result"],
            )

    def run(self, graph: Graph) -> Graph:
        """Fold every pair whose convolution feeds nothing else."""
        edit = Editor(graph, str(self))
        source = copied_tree(graph.weights.source)
        for norm in list(edit.code.nodes):
            convolution = _folds(norm)
            if convolution is not None:
                _fold(edit, graph.weights, source, convolution, norm)
        edit.erase_dead()
        read = {str(node.target) for node in edit.code.find_nodes(op="get_attr")}
        used = {path.removeprefix("source.") for path in read}
        edit.changes["weights"] = Weights(copied_tree(source, used))
        return edit.finish()


def _folds(norm: fx.Node) -> fx.Node | None:
    """The convolution to fold this node into, if it is an inference batch normalization."""
    if schema_name(norm) != "aten::batch_norm" or norm.args[5] is not False:
        return None
    convolution = norm.args[0]
    assert isinstance(convolution, fx.Node)
    tensors = [*convolution.args[1:3], *norm.args[1:5]]
    constant = all(
        item is None or (isinstance(item, fx.Node) and item.op == "get_attr") for item in tensors
    )
    fits = schema_name(convolution) in _CONVOLUTIONS and len(convolution.users) == 1
    fits = fits and not convolution.kwargs and not norm.kwargs
    return convolution if fits and constant else None


def _fold(
    edit: Editor, weights: Weights, source: nn.Module, convolution: fx.Node, norm: fx.Node
) -> None:
    def tensor(item: object) -> torch.Tensor | None:
        if not isinstance(item, fx.Node):
            return None
        return tensor_at(weights, str(item.target)).double()

    kernel, bias = tensor(convolution.args[1]), tensor((*convolution.args, None)[2])
    gamma, beta, mean, variance = (tensor(item) for item in norm.args[1:5])
    assert kernel is not None
    assert mean is not None
    assert variance is not None
    epsilon = norm.args[7]
    assert isinstance(epsilon, float)
    scale = (variance + epsilon).rsqrt() * (1.0 if gamma is None else gamma)
    offset = (0.0 if bias is None else bias) - mean
    folded = kernel * scale.reshape(-1, *(1,) * (kernel.ndim - 1))
    shift = offset * scale + (0.0 if beta is None else beta)
    path = str(convolution.args[1].target).removeprefix("source.")  # type: ignore[union-attr]
    nodes = [
        edit.add_source(source, f"{path.rsplit('.', 1)[0]}.folded_{name}", value, convolution)
        for name, value in (("weight", folded), ("bias", shift))
    ]
    convolution.args = (convolution.args[0], *nodes, *convolution.args[3:])
    edit.substitute(norm, convolution, fused=True)
