"""Optimizing a source graph before programs are compiled into it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from graphprog.errors import PassError
from graphprog.ir.graph import Graph, require_graph
from graphprog.passes.optimize.agreement import agreement
from graphprog.passes.optimize.channels_last import ChannelsLast
from graphprog.passes.optimize.fold_batch_norm import FoldBatchNorm
from graphprog.passes.optimize.fold_constants import FoldConstants
from graphprog.passes.optimize.fold_padding import FoldPadding
from graphprog.passes.optimize.fuse_gelu import FuseGelu
from graphprog.passes.optimize.quantize_weights import QuantizeWeights
from graphprog.passes.pipeline import Pipeline
from graphprog.spec.checks import require_choice

WEIGHTS = {"int8": 8, "int4": 4}
"""Bits of a weight, by name."""


def optimize(
    graph: Graph, *, weights: str | None = None, inputs: Sequence[torch.Tensor] | None = None
) -> Graph:
    """Make a captured source faster to run and to train programs through.

    Computes what depends on its tensors alone, computes a GELU that is written out by one
    operation, folds batch normalization and zero padding into convolutions, and lays images out
    with the channel innermost. The result equals the source up to rounding, not bit for bit, and is
    a source of its own: programs trained on it belong to it.
    ``history`` shows what each did.

    Args:
        graph: the captured graph.
        weights: store the source's weights in ``int8`` or ``int4``; programs stay in full
            precision, and so do activations and gradients. The result then equals the source
            roughly: ``history`` says how well both agree.
        inputs: all tensor inputs, in order, to measure the agreement on; random ones by default.

    Raises:
        PassError: the graph has a program in it; ``weights`` is unknown, or the graph's are on the
            meta device, not finite, or in few bits already.

    Example:
        >>> source = gp.optimize(graph)  # faster, and equal but for rounding
        >>> assert torch.allclose(source(images), graph(images), atol=1e-4)
        >>> smaller = gp.optimize(graph, weights="int8")
    """
    require_graph(graph)
    passes = (FoldConstants(), FuseGelu(), FoldBatchNorm(), FoldPadding(), ChannelsLast())
    if weights is None:
        return Pipeline(passes)(graph)
    require_choice("", "weights", weights, tuple(WEIGHTS), error=PassError)
    quantize = QuantizeWeights(bits=WEIGHTS[weights])
    quantize.requires(graph)
    found = Pipeline((*passes, quantize))(graph)
    before, after = graph.summary().bytes, found.summary().bytes
    note = (
        f"weights in {weights}: {before / 1e6:.3g} MB became {after / 1e6:.3g} MB; beside the "
        f"source in full precision, {agreement(graph, found, inputs)}"
    )
    return dataclasses.replace(found, history=found.history.noted(note))
