"""Writing one token after another with the keys and values of those before."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch

from graphprog.analysis.roles import Roles, roles_of
from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.program import Program
from graphprog.errors import DataError, ProgramError
from graphprog.generation.decoder import PromptFormat
from graphprog.generation.verify_cache import Values, prove
from graphprog.ir.graph import Graph
from graphprog.passes.attention.match_attention import matched
from graphprog.passes.kv.kv_cache import CacheKV, ExposeKV


@dataclasses.dataclass(frozen=True, eq=False)
class CachedDecoder:
    """A graph with a KV cache, as two graphs over the same weights.

    Attributes:
        source: the graph without a cache.
        prefill: from all tokens to its results and ``present_key_0``, ``present_value_0``, ...
            [B, key heads, S, d], and ``cross_key_0``, ... of an encoder's result.
        decode: the same inputs, without those of the encoder, and ``past_key_0``, ... of the first
            P tokens; results are those of the last S - P.
        prompt_format: of the program.

    Example:
        >>> decoder = gp.with_kv_cache(language)
        >>> decoder.prefill.outputs[:3]
        ('logits', 'present_key_0', 'present_value_0')
    """

    source: Graph
    prefill: Graph
    decode: Graph
    prompt_format: PromptFormat = dataclasses.field(default_factory=PromptFormat)

    @cached_property
    def roles(self) -> Roles:
        """What the inputs are to someone who writes."""
        return roles_of(self.source)

    def results(self, inputs: Values, memory: Values | None = None) -> tuple[Values, Values]:
        """Compute what is new.

        Args:
            inputs: of all tokens so far, by name; those that a graph does not take are left out.
            memory: what the call before returned; None at first.

        Returns:
            The results by name, of the tokens that the memory does not have; and the new memory.

        Raises:
            DataError: an input is missing, or the graph does not run on these.
        """
        graph = self.decode if memory else self.prefill
        found = _run(graph, {**inputs, **(memory or {})})
        return carried(dict(zip(graph.outputs, found, strict=True)), memory)

    def advance(self, inputs: Values, memory: Values | None = None) -> tuple[torch.Tensor, Values]:
        """Logits [B, T, V] of the T tokens that the memory does not have, and the new memory.

        Raises:
            DataError: the memory is of other rows, or has all tokens; as :meth:`results`.
        """
        _check(inputs, memory or {}, self.roles)
        with torch.no_grad():
            results, memory = self.results(inputs, memory)
        return results[self.roles.logits], memory

    def select(self, memory: Values, rows: torch.Tensor) -> Values:
        """The memory of some rows, in that order."""
        return {name: value[rows.to(value.device)] for name, value in memory.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class UncachedDecoder:
    """A graph that reads all tokens again for each new one, as any model can.

    Attributes:
        source: the graph.
        prompt_format: of the program.

    Example:
        >>> decoder = gp.generation.UncachedDecoder(language)
        >>> texts = gp.generate(decoder, [[72, 105]], max_new_tokens=4)  # reads all each time
    """

    source: Graph
    prompt_format: PromptFormat = dataclasses.field(default_factory=PromptFormat)

    @cached_property
    def roles(self) -> Roles:
        """What the inputs are to someone who writes."""
        return roles_of(self.source)

    def advance(self, inputs: Values, memory: Values | None = None) -> tuple[torch.Tensor, Values]:
        """Logits [B, S, V] of all tokens; there is no memory."""
        with torch.no_grad():
            found = dict(zip(self.source.outputs, _run(self.source, inputs), strict=True))
        return found[self.roles.logits], {}

    def select(self, memory: Values, rows: torch.Tensor) -> Values:
        """Nothing."""
        return {}


def _check(inputs: Values, memory: Values, roles: Roles) -> None:
    """Refuse a memory that is not of the first tokens of these rows."""
    past = memory.get("past_key_0")
    if past is None or roles.tokens not in inputs:
        return
    rows, length = inputs[roles.tokens].shape
    if len(past) != rows:
        raise DataError(
            f"the memory is of {len(past)} rows, and {roles.tokens} has {rows}",
            ["select(memory, rows)"],
        )
    if past.shape[2] >= length:
        raise DataError(
            f"the memory has {past.shape[2]} tokens, and {roles.tokens} no more than {length}",
            ["inputs of all tokens so far, and those that are new"],
        )


def _run(graph: Graph, given: Values) -> tuple[Any, ...]:
    """Run a graph on inputs by name, on the device of its weights."""
    device = graph.device
    wanted = [str(node.target) for node in graph.placeholders]
    if missing := [name for name in wanted if name not in given]:
        raise DataError(f"{graph.name} also takes {', '.join(missing)}")
    try:
        return graph.run([given[name].to(device) for name in wanted])
    except (IndexError, RuntimeError) as error:
        own = [name for name in given if not name.startswith(("past_", "cross_"))]
        shapes = ", ".join(f"{name} {list(given[name].shape)}" for name in own)
        raise DataError(
            f"{graph.name} cannot run on {shapes}: {error}", ["fewer tokens"]
        ) from error


def carried(found: Mapping[str, Any], memory: Mapping[str, Any] | None) -> tuple[Any, Any]:
    """Divide what a graph returned into results and memory."""
    kept = {name: value for name, value in (memory or {}).items() if name.startswith("cross_")}
    results: dict[str, Any] = {}
    for name, value in found.items():
        if name.startswith("present_"):
            kept[f"past_{name.removeprefix('present_')}"] = value
        elif name.startswith("cross_"):
            kept[name] = value
        else:
            results[name] = value
    return results, kept


def with_kv_cache(model: Graph | ReprogrammedModel) -> CachedDecoder:
    """Derive the graphs that write one token after another.

    Nothing but the graph is consulted, and that both compute what it computes is tried out before
    this returns. They read the weights and the program of ``model``, and follow their changes.

    Args:
        model: a causal decoder, or an encoder with a decoder, captured with a varying number of
            tokens; with or without a program.

    Raises:
        PassError: something reads other tokens in a way that has no cache; names operation,
            module and source line.
        ProgramError: something else is given.

    Example:
        >>> decoder = gp.with_kv_cache(language)  # once, for many calls
        >>> texts = gp.generate(decoder, ["Hi", "Hello"], max_new_tokens=4)
    """
    graph, prompt_format = graph_and_format(model)
    source = matched(graph)
    found = CachedDecoder(source, ExposeKV()(source), CacheKV()(source), prompt_format)
    prove(source, found.prefill, found.decode, found.results)
    return found


def graph_and_format(model: Graph | ReprogrammedModel) -> tuple[Graph, PromptFormat]:
    """The graph that computes what a graph or a task does, and its words.

    Raises:
        ProgramError: something else is given.
    """
    if isinstance(model, ReprogrammedModel):
        return model.graph, PromptFormat.of(model.spec, model.tokenizer)
    if isinstance(model, Graph):
        return model, PromptFormat.of(Program(), model.tokenizer)
    raise ProgramError(
        f"a graph or a task is needed, not a {type(model).__name__}",
        ["gp.capture(model, (example,)) makes a graph of a model"],
    )
