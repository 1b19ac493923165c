"""Optimizing a source graph before programs are compiled into it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from graphprog.errors import PassError
from graphprog.ir.graph import Graph, require_graph
from graphprog.passes.base import Pass
from graphprog.passes.optimize.agreement import agreement, example_inputs
from graphprog.passes.optimize.channels_last import ChannelsLast
from graphprog.passes.optimize.fold_batch_norm import FoldBatchNorm
from graphprog.passes.optimize.fold_constants import FoldConstants
from graphprog.passes.optimize.fold_padding import FoldPadding
from graphprog.passes.optimize.fuse_gelu import FuseGelu
from graphprog.passes.optimize.merge_linears import MergeLinears
from graphprog.passes.optimize.quantize_weights import QuantizeWeights
from graphprog.passes.optimize.source_edit import require_source
from graphprog.passes.optimize.trial import Timer, trial, wall_clock
from graphprog.passes.pipeline import Pipeline
from graphprog.spec.checks import require_choice

WEIGHTS = {"int8": 8, "int4": 4}
"""Bits of a weight, by name."""


_PASSES: tuple[tuple[Pass, bool], ...] = (
    (FoldConstants(), False),
    (FuseGelu(), True),
    (FoldBatchNorm(), True),
    (FoldPadding(), True),
    (ChannelsLast(), True),
)
"""What is applied, and whether results may differ by rounding."""
_MEASURED = (*_PASSES, (MergeLinears(), True))


def optimize(
    graph: Graph,
    *,
    weights: str | None = None,
    inputs: Sequence[torch.Tensor] | None = None,
    measure: bool | Timer = False,
    exact: bool | None = None,
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
        inputs: all tensor inputs, in order, to measure on; random ones by default.
        measure: try each of these passes, and merging linear layers, on this machine, and keep
            those with which the graph is faster by 3 percent or more; ``history.notes`` has a
            table. The result depends on the machine: train programs for other machines without
            it. What was found is kept in the user's folder of caches. A function from a call
            to seconds measures in place of the clock.
        exact: leave out what may change rounding. By default it is left out where passes are
            measured, and applied elsewhere.

    Raises:
        PassError: the graph has a program in it; ``weights`` is unknown, or the graph's are on the
            meta device, not finite, or in few bits already.

    Example:
        >>> source = gp.optimize(graph)  # faster, and equal but for rounding
        >>> assert torch.allclose(source(images), graph(images), atol=1e-4)
        >>> smaller = gp.optimize(graph, weights="int8")
    """
    require_graph(graph)
    quantize = None
    if weights is not None:
        require_choice("", "weights", weights, tuple(WEIGHTS), error=PassError)
        quantize = QuantizeWeights(bits=WEIGHTS[weights])
        quantize.requires(graph)
    bits_only = bool(measure) if exact is None else exact
    if measure:
        found = _measured(graph, inputs, wall_clock if measure is True else measure, bits_only)
    else:
        found = Pipeline(tuple(one for one, rounds in _PASSES if not (rounds and bits_only)))(graph)
    if quantize is None:
        return found
    return _quantized(graph, quantize(found), str(weights), inputs)


def _measured(
    graph: Graph, inputs: Sequence[torch.Tensor] | None, timer: Timer, exact: bool
) -> Graph:
    require_source("optimize", graph)
    candidates = [(one, rounds) for one, rounds in _MEASURED if not (rounds and exact)]
    given = example_inputs(graph) if inputs is None else [one.to(graph.device) for one in inputs]
    tried = trial(graph, candidates, given, timer)
    found = tried.pipeline(graph)
    return dataclasses.replace(found, history=found.history.noted(str(tried)))


def _quantized(
    graph: Graph, found: Graph, weights: str, inputs: Sequence[torch.Tensor] | None
) -> Graph:
    before, after = graph.summary().bytes, found.summary().bytes
    note = (
        f"weights in {weights}: {before / 1e6:.3g} MB became {after / 1e6:.3g} MB; beside the "
        f"source in full precision, {agreement(graph, found, inputs)}"
    )
    return dataclasses.replace(found, history=found.history.noted(note))
