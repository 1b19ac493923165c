"""Freezing a task: a source graph with the program computed into it, for inference."""

from __future__ import annotations

import dataclasses
from contextlib import suppress

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import GraphprogError, ProgramError
from graphprog.ir.graph import Graph
from graphprog.passes.once_per_step.once_per_step import OncePerStep
from graphprog.passes.optimize.channels_last import ChannelsLast
from graphprog.passes.optimize.fold_additive import FoldAdditive
from graphprog.passes.optimize.fold_batch_norm import FoldBatchNorm
from graphprog.passes.optimize.fold_constants import FoldConstants
from graphprog.passes.optimize.fold_padding import FoldPadding
from graphprog.passes.optimize.freeze_program import FreezeProgram
from graphprog.passes.optimize.merge_linears import MergeLinears
from graphprog.passes.pipeline import Pipeline
from graphprog.passes.selection.only_what_is_read import OnlyWhatIsRead
from graphprog.utils.torch_modes import plain_modes

_FEWER = (OnlyWhatIsRead(), OncePerStep())
_EXACT = (FreezeProgram(), FoldConstants())
_ROUNDING = (FoldBatchNorm(), FoldAdditive(), FoldPadding(), MergeLinears(), ChannelsLast())


@plain_modes()
def freeze(task: ReprogrammedModel, *, exact: bool = True) -> Graph:
    """Return a graph that computes what a task does in inference, with nothing left to train.

    What depends on the program and the source alone is computed now: squashed and masked patterns,
    reparameterized prompts, fixed inputs and what the source makes of them. The task and its source
    do not change, and later training of the task does not change the graph. The graph takes any
    finite values; the contract's range is no longer checked.

    Args:
        task: the task to freeze.
        exact: leave the result bit for bit that of the task. Otherwise, it may differ by rounding:
            only what is read is computed, keys and values of a prompt before causal attention are
            constants, constants that are added move into biases and other constants, linear layers
            are merged, fixed heads are multiplied in, and convolutions take over what
            ``gp.optimize`` folds.

    Raises:
        ProgramError: ``task`` is not a compiled task.

    Example:
        >>> frozen = gp.freeze(task)
        >>> assert torch.equal(frozen(images), task(images))
        >>> faster = gp.freeze(task, exact=False)  # equal but for rounding
    """
    if not isinstance(task, ReprogrammedModel):
        raise ProgramError(
            f"a compiled task is needed, not a {type(task).__name__}",
            ["gp.optimize(graph) is for a captured graph without a program"],
        )
    graph = Pipeline(_EXACT)(task.graph if exact else _fewer(task.graph))
    if not exact:
        graph = Pipeline(_ROUNDING)(graph)
    labels = task.spec.contract.labels
    hints = {key: value for key, value in graph.hints.items() if key != "labels"}
    return dataclasses.replace(graph, hints={**hints, "labels": labels} if labels else hints)


def _fewer(graph: Graph) -> Graph:
    """Return a graph that computes less, as far as it can be divided."""
    for item in _FEWER:
        with suppress(GraphprogError):
            graph = item(graph)
    return graph
