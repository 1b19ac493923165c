"""Optimizing a source graph before programs are compiled into it."""

from __future__ import annotations

from graphprog.ir.graph import Graph, require_graph
from graphprog.passes.optimize.channels_last import ChannelsLast
from graphprog.passes.optimize.fold_batch_norm import FoldBatchNorm
from graphprog.passes.optimize.fold_constants import FoldConstants
from graphprog.passes.optimize.fold_padding import FoldPadding
from graphprog.passes.pipeline import Pipeline


def optimize(graph: Graph) -> Graph:
    """Make a captured source faster to run and to train programs through.

    Computes what depends on its tensors alone, folds batch normalization and zero padding into
    convolutions, and lays images out with the channel innermost. The result equals the source up to
    rounding, not bit for bit, and is a source of its own: programs trained on it belong to it.
    ``history`` shows what each did.

    Raises:
        PassError: the graph has a program in it.

    Example:
        >>> source = gp.optimize(graph)  # faster, and equal but for rounding
        >>> assert torch.allclose(source(images), graph(images), atol=1e-4)
    """
    require_graph(graph)
    return Pipeline((FoldConstants(), FoldBatchNorm(), FoldPadding(), ChannelsLast()))(graph)
