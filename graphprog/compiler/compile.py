"""Compilation: a program and a graph become a trainable module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphprog.compiler.lower_text import advising, calibrate, realized
from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.program import Program
from graphprog.errors import InterfaceError
from graphprog.ir.graph import Graph, require_graph
from graphprog.manipulations.prompts.prefix import Prefix
from graphprog.passes.attention.match_attention import MatchAttention, explain, matched
from graphprog.passes.base import Pass
from graphprog.passes.extend_axis.extend_axis import ExtendAxis
from graphprog.passes.insert.align import Align
from graphprog.passes.insert.bind_inputs import BindInputs
from graphprog.passes.insert.insert import Insert, ReplaceInput
from graphprog.passes.insert.replace_tokens import ReplaceTokens
from graphprog.passes.kv.extend_kv import ExtendKV
from graphprog.passes.pipeline import Pipeline
from graphprog.passes.verify import verify

LOWERINGS: dict[str, Callable[[Any, int], Pass]] = {
    "insert": Insert,
    "replace-input": lambda part, seed: ReplaceInput(part, part.shape),
    "extend-axis": ExtendAxis,
    "extend-kv": ExtendKV,
    "bind-inputs": lambda part, seed: BindInputs(part),
    "replace-tokens": ReplaceTokens,
}
"""From a manipulation and a seed to the pass that it names as its ``lowering``."""


def lower(program: Program, seed: int = 0) -> Pipeline:
    """The passes that put a program into a graph.

    Args:
        program: what to compile.
        seed: of random initial values; every part draws from its own stream.
    """
    parts = enumerate(program.lowered())
    passes = [LOWERINGS[part.lowering](part, seed + number) for number, part in parts]
    if not program.align.is_identity:
        passes.append(Align(program.align, seed=seed + len(passes)))
    return Pipeline(tuple(passes))


def compile(graph: Graph, program: Program, seed: int = 0) -> ReprogrammedModel:
    """Compile a program into a captured model.

    Args:
        graph: the source model; it is shared, not changed, and may serve many programs.
        program: what to put in.
        seed: of random initial values.

    Returns:
        A module of which only ``program.*`` is trainable, in eval mode.

    Raises:
        InterfaceError: the program names an interface the graph has not, or one unfit for it.
        ProgramError: the program does not fit the shapes of the graph.
        PassError: a pass refused, or the result failed verification.
        DataError: a verbalizer is to be calibrated on texts that cannot be queries.

    Example:
        >>> task = gp.compile(graph, gp.Program([gp.Additive()], align=gp.FixedMap(classes=2)))
        >>> [name for name, value in task.named_parameters() if value.requires_grad]
        ['program.additive.value']
    """
    require_graph(graph)
    tokenized, prompt = realized(program, graph)
    pipeline = lower(tokenized, seed)
    with advising(prompt):
        base = attending(graph, tokenized)
        rewritten = pipeline(base)
    verify(rewritten, base)
    if base is not graph:
        pipeline = Pipeline((MatchAttention(), *pipeline.passes))
    task = ReprogrammedModel(graph, rewritten, program, pipeline, seed, prompt)
    task.eval()
    calibrate(task)
    return task


def attending(graph: Graph, program: Program) -> Graph:
    """The graph that a program is put into: attention is one operation where it has a memory.

    What the program changes is proved against this graph; the task keeps the one that was given,
    which it is when the program is disabled.

    Raises:
        InterfaceError: there is no attention at the place of a memory; says what there is of it.
    """
    memories = [part for part in program.lowered() if isinstance(part, Prefix)]
    if not memories:
        return graph
    found = matched(graph)
    for part in memories:
        try:
            found.interfaces().resolve_all(part.at)
        except InterfaceError as error:
            if not (partial := explain(found)):
                raise
            what = "\n".join([error.what, "Of attention that is written out:", *partial])
            raise InterfaceError(what, error.remedies) from error
    return found
