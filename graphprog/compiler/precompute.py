"""Precomputing a fixed prefix: its keys and values are computed once and stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from graphprog.analysis.attention import Attention
from graphprog.analysis.token_inputs import TokenInputs
from graphprog.compiler.compile import compile, lower
from graphprog.compiler.lower_text import realized
from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.program import Program
from graphprog.errors import ProgramError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.inputs import random_inputs
from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.prompts.concatenative import Concatenative
from graphprog.manipulations.prompts.prefix import Prefix
from graphprog.passes.attention.match_attention import matched
from graphprog.passes.kv.verify_prefix import TOLERANCES
from graphprog.text.prompting.part import TextPart
from graphprog.utils.numerics import difference
from graphprog.values.base import Stored

_FRONTS = ("tokens", "embedding")
_QUERY = 5


def precompute(task: ReprogrammedModel) -> ReprogrammedModel:
    """Return a task whose prefix is stored as keys and values, and not computed again.

    The prefix is what the program prepends to a sequence: a prompt at ``tokens`` or ``embedding``,
    learned or not; a :class:`graphprog.Prefix`; instruction and demonstrations. The result returns
    what the task returns for the entries of the query. The stored keys and values are saved, loaded
    without running the source model on the text, and swapped in ONNX Runtime like learned tensors.
    Training does not change them.

    Raises:
        ProgramError: there is no prefix, or it cannot be stored: it depends on the query, as in a
            model that is not causal, or entries before it change.

    Example:
        >>> prompted = gp.compile(language, gp.Program(gp.methods.prompt_tuning(tokens=4)))
        >>> stored = gp.precompute(prompted)  # the learned prompt as keys and values
    """
    tokenized, _ = realized(task.spec, task.base)
    prompts = [part for part in tokenized.acting if isinstance(part, Concatenative)]
    memories = [part for part in tokenized.acting if isinstance(part, Prefix)]
    if not prompts and not memories:
        raise ProgramError(
            "the program has no prefix to precompute",
            ["use gp.Demonstrations, gp.Prefix or gp.Concatenative(at='tokens') in the program"],
        )
    if len(prompts) > 1 or (prompts and memories):
        raise ProgramError(
            "the program has several prefixes, but precompute takes one: "
            + ", ".join(part.label for part in [*prompts, *memories])
        )
    rows = (
        {prompts[0].label: _computed(task, tokenized, prompts[0])}
        if prompts
        else {name: _held(task, name) for name in _names(task)}
    )
    # positions that are added before a prompt is prepended do not shift: the equal case is taken
    gaps = []
    for positions in ("shift", "keep") if prompts else ("",):
        folded = _folded(task, _with_rows(task.spec, tokenized, positions), rows)
        gaps.append(_gap(task, folded))
        if gaps[-1] is None:
            return folded
    raise ProgramError(
        f"outputs would differ with the prefix stored as keys and values (largest difference "
        f"{gaps[0]:.3g}): an operation other than attention reads it",
        ["use the task without gp.precompute"],
    )


def _folded(
    task: ReprogrammedModel, spec: Program, rows: dict[str, torch.Tensor]
) -> ReprogrammedModel:
    """Return the task with the stored prefix, and the other learned tensors of the task."""
    folded = compile(task.base, spec, task.seed)
    state = {name: value for name, value in task.program_state().items() if _kept(name, folded)}
    for name, value in rows.items():
        state[f"program.{name}.rows.value"] = value
    folded.load_program_state(state)
    folded.summary = dict(task.summary)
    folded.train(task.training)
    return folded


def _kept(name: str, folded: ReprogrammedModel) -> bool:
    return name.removeprefix("program.") in folded.program.state_dict()


def _with_rows(spec: Program, tokenized: Program, positions: str) -> Program:
    """Return the program with stored prefixes, and with its text, still added to queries."""
    texts = [part for part in spec.manipulations if isinstance(part, TextPart)]
    parts: list[Manipulation | TextPart] = [
        part if part.kept == "text" else dataclasses.replace(part, kept="stored") for part in texts
    ]
    for part in tokenized.acting:
        if isinstance(part, Prefix):
            parts.append(dataclasses.replace(part, value=Stored()) if part.length else part)
        elif isinstance(part, Concatenative):
            parts.append(
                Prefix(
                    at=_attention(part),
                    length=part.length,
                    value=Stored(),
                    positions=positions,
                    input_roles=part.input_roles,
                    name=part.label,
                )
            )
        else:
            parts.append(part)
    return dataclasses.replace(spec, manipulations=tuple(parts))


def _attention(part: Concatenative) -> str:
    """Return the interface of the attention that reads the prefix of a sequence."""
    tower, _, alias = part.at.rpartition(".")
    if alias not in _FRONTS or part.offset != 0 or part.axis != 1:
        raise ProgramError(
            f"{part.label} inserts entries at {part.at}, axis {part.axis}, offset {part.offset}; "
            "only a prefix of a sequence can be precomputed",
            ["use at='tokens' or at='embedding', axis=1, offset=0"],
        )
    return f"{tower}.attention[*]" if tower else "attention[*]"


def _names(task: ReprogrammedModel) -> list[str]:
    """Return the names of the prefixes in the graph, in the order of the program."""
    return [one.name for one in task.graph.insertions if one.kind == "prefix"]


def _held(task: ReprogrammedModel, name: str) -> torch.Tensor:
    """Return the keys and values of a prefix [P, n]."""
    module = getattr(task.program, name)
    like = torch.zeros(1, device=next(iter(task.program_state().values()), torch.zeros(1)).device)
    with torch.no_grad():
        found: torch.Tensor = module.eval().rows(like)
    return _wide(found)


def _computed(task: ReprogrammedModel, tokenized: Program, part: Concatenative) -> torch.Tensor:
    """Compute the keys and values [P, n] of entries before a sequence."""
    at = _attention(part)
    base = matched(task.base)
    pipeline = lower(tokenized, task.seed)
    whole = ReprogrammedModel(base, pipeline(base), tokenized, pipeline, task.seed)
    whole.load_program_state(task.program_state())
    whole.eval()
    places = whole.graph.interfaces().resolve_all(at)
    found = [Attention(whole.graph.nodes[place.node]) for place in places]
    nodes = [node for one in found for node in (one.key, one.value)]
    repeats = found[0].repeats
    one, other = (whole.graph.evaluate(nodes, inputs) for inputs in _queries(whole))
    for node in nodes:
        first, second = (values[node][:, :, : part.length] for values in (one, other))
        if not difference(first, second).within(TOLERANCES[torch.float32]):
            raise ProgramError(
                f"{part.label} depends on the query after it: its {node.name} does",
                ["use a causal model, in which a prefix does not depend on the query"],
            )
    heads = [one[node][0, ::repeats, : part.length] for node in nodes]
    return _wide(torch.stack(heads).permute(2, 0, 1, 3).flatten(1))


def _queries(task: ReprogrammedModel) -> list[tuple[torch.Tensor, ...]]:
    """Return two batches of one random query each, of the same length."""
    generator = torch.Generator().manual_seed(0)
    try:
        inputs = TokenInputs.of(task.base)
    except ProgramError:
        bounds = task.spec.contract.range or (0.0, 1.0)
        return [random_inputs(task.inputs, 1, bounds, seed) for seed in (0, 1)]
    others = dict.fromkeys(inputs.others, 0)
    size = inputs.length or _QUERY
    rows = torch.randint(inputs.vocabulary, (2, size), generator=generator).tolist()
    return [tuple(inputs.tensors([row], 0, others).values()) for row in rows]


def _gap(task: ReprogrammedModel, folded: ReprogrammedModel) -> float | None:
    """Return the difference of both tasks on a query, without the outputs for the prefix.

    None if they are equal.
    """
    (query, _) = _queries(task)
    for wanted, found in zip(_outputs(task, query), _outputs(folded, query), strict=True):
        for axis in range(found.ndim):
            wanted = wanted.narrow(axis, wanted.shape[axis] - found.shape[axis], found.shape[axis])
        gap = difference(wanted, found)
        if not gap.within(TOLERANCES.get(found.dtype, 0.02)):
            return gap.absolute
    return None


def _outputs(task: ReprogrammedModel, query: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    graph = task.graph
    nodes = [node for node in graph.output_nodes if hasattr(node, "meta")]
    floats = [node for node in nodes if fake_tensor(node).is_floating_point()]
    found = graph.evaluate(floats, query)
    return [found[node] for node in floats]


def _wide(rows: torch.Tensor) -> torch.Tensor:
    return rows.detach().cpu().to(torch.promote_types(rows.dtype, torch.float32)).clone()
