"""Compiling a program and a graph into a trainable module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphprog.compiler.length_checks import refuse_too_long
from graphprog.compiler.lower_text import advising, calibrate, realized
from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.program import Program
from graphprog.errors import ProgramError
from graphprog.ir.graph import Graph, require_graph
from graphprog.manipulations.prompts.prefix import Prefix
from graphprog.passes.attention.expose_attention import ExposeAttention, inside_attention
from graphprog.passes.attention.expose_layers import ExposeLayers, layers_named
from graphprog.passes.attention.match_attention import MatchAttention, attending
from graphprog.passes.base import Pass
from graphprog.passes.extend_axis.extend_axis import ExtendAxis
from graphprog.passes.insert.align import Align
from graphprog.passes.insert.bind_inputs import BindInputs
from graphprog.passes.insert.insert import Insert, ReplaceInput
from graphprog.passes.insert.replace_tokens import ReplaceTokens
from graphprog.passes.kv.extend_kv import ExtendKV
from graphprog.passes.pipeline import Pipeline
from graphprog.passes.verify import verify
from graphprog.rewriting.effects import require_acting
from graphprog.utils.torch_modes import plain_modes

LOWERINGS: dict[str, Callable[[Any, int], Pass]] = {
    "insert": Insert,
    "replace-input": lambda part, seed: ReplaceInput(part, part.shape),
    "extend-axis": ExtendAxis,
    "extend-kv": ExtendKV,
    "bind-inputs": lambda part, seed: BindInputs(part),
    "replace-tokens": ReplaceTokens,
}
"""From a manipulation and a seed to the pass named by its ``lowering``."""


def lower(program: Program, seed: int = 0) -> Pipeline:
    """Return the passes that insert a program into a graph.

    Args:
        program: what to compile.
        seed: seed of random initial values; every part has its own random stream.
    """
    parts = enumerate(program.lowered())
    passes = [LOWERINGS[part.lowering](part, seed + number) for number, part in parts]
    if not program.align.is_identity:
        passes.append(Align(program.align, seed=seed + len(passes)))
    return Pipeline(tuple(passes))


@plain_modes()
def compile(graph: Graph, program: Program, seed: int = 0) -> ReprogrammedModel:
    """Compile a program into a captured model.

    Args:
        graph: the source model; it is shared, not changed, and can serve many programs.
        program: the program to insert.
        seed: seed of random initial values.

    Returns:
        A module in eval mode, in which only ``program.*`` is trainable.

    Raises:
        InterfaceError: the graph has no such interface, it is unsuitable for the program, or no
            output depends on it, because the alignment reads what comes before.
        ProgramError: the program does not match the shapes of the graph, or the graph has one.
        PassError: a pass refused, or the result failed verification.
        DataError: the texts for calibrating a verbalizer cannot be queries.

    Example:
        >>> task = gp.compile(graph, gp.Program([gp.Additive()], align=gp.FixedMap(classes=2)))
        >>> [name for name, value in task.named_parameters() if value.requires_grad]
        ['program.additive.value']
    """
    require_graph(graph)
    if graph.insertions:
        raise ProgramError(
            f"{graph.name} already has a program",
            ["compile one program, with the parts of both, into the source, task.base"],
        )
    tokenized, prompt = realized(program, graph)
    pipeline = lower(tokenized, seed)
    with advising(prompt):
        first = Pipeline(preparing(graph, tokenized))
        base = first(graph)
        rewritten = pipeline(base)
    refuse_too_long(base, rewritten)
    require_acting(rewritten)
    verify(rewritten, base)
    pipeline = Pipeline((*first.passes, *pipeline.passes))
    task = ReprogrammedModel(graph, rewritten, program, pipeline, seed, prompt)
    task.eval()
    calibrate(task)
    return task


def preparing(graph: Graph, program: Program) -> tuple[Pass, ...]:
    """Return the passes that give a graph the interfaces of a program.

    Attention with a prefix becomes one operation, attention inside which the program acts is
    written out. The program's changes are proved against the result. The task keeps the given
    graph, which it runs when the program is disabled.

    Raises:
        InterfaceError: there is no attention at the interface of a prefix; lists near matches.
    """
    passes: list[Pass] = []
    parts = program.lowered()
    prefixes = [part.at for part in parts if isinstance(part, Prefix)]
    if prefixes and (found := attending(graph, prefixes)) is not graph:
        passes.append(MatchAttention())
        graph = found
    names = [name for part in parts for name in (part.at, *part.reads)]
    names += [step.at for step in program.align.steps]
    if layers := layers_named(graph, names):
        passes.append(ExposeLayers(layers))
        graph = passes[-1](graph)
    if inside := inside_attention(graph, names):
        passes.append(ExposeAttention(inside))
    return tuple(passes)
