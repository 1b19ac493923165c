"""Decoding token by token, with or without cached keys and values of earlier tokens."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import torch

from graphprog.analysis.roles import Roles, roles_of
from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.precompute import precompute
from graphprog.compiler.program import Program
from graphprog.errors import DataError, PassError, ProgramError
from graphprog.generation.decoder import PromptFormat
from graphprog.ir.graph import Graph
from graphprog.manipulations.prompts.concatenative import Concatenative
from graphprog.passes.attention.match_attention import matched
from graphprog.passes.kv.cached_step import Values, cached_step, run_by_name
from graphprog.passes.kv.kv_cache import CacheKV, ExposeKV
from graphprog.passes.kv.kv_layout import has_prompt


@dataclasses.dataclass(frozen=True, eq=False)
class CachedDecoder:
    """A graph with a KV cache, as two graphs over the same weights.

    Attributes:
        source: the graph without a cache.
        prefill: takes all tokens; returns its results and ``present_key_0``, ``present_value_0``,
            ... [B, key heads, S, d], and ``cross_key_0``, ... of an encoder's result.
        decode: takes the same inputs without those of the encoder, and ``past_key_0``, ... of the
            first P tokens; returns the results of the last S - P tokens.
        prompt_format: prompt format of the program.

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
        """The roles of the inputs in generation."""
        return roles_of(self.source)

    def results(self, inputs: Values, cache: Values | None = None) -> tuple[Values, Values]:
        """Compute the results of new tokens.

        Args:
            inputs: inputs of all tokens so far, by name; unknown names are ignored.
            cache: the cache that the previous call returned; None at first.

        Returns:
            The results by name of the tokens that are not in the cache, and the new cache.

        Raises:
            DataError: an input is missing, or the graph does not run on the inputs.
        """
        return cached_step(self.prefill, self.decode, inputs, cache)

    def advance(self, inputs: Values, cache: Values | None = None) -> tuple[torch.Tensor, Values]:
        """Return logits [B, T, V] of the T tokens that are not in the cache, and the new cache.

        Raises:
            DataError: the cache has other rows, or already has all tokens; as :meth:`results`.
        """
        _check(inputs, cache or {}, self.roles)
        with torch.no_grad():
            results, cache = self.results(inputs, cache)
        return results[self.roles.logits], cache

    def select(self, cache: Values, rows: torch.Tensor) -> Values:
        """Select rows of a cache, in the given order."""
        return {name: value[rows.to(value.device)] for name, value in cache.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class UncachedDecoder:
    """A graph that recomputes all tokens for each new one, which works for any model.

    Attributes:
        source: the graph.
        prompt_format: prompt format of the program.

    Example:
        >>> decoder = gp.generation.UncachedDecoder(language)
        >>> texts = gp.generate(decoder, [[72, 105]], max_new_tokens=4)  # recomputes all tokens
    """

    source: Graph
    prompt_format: PromptFormat = dataclasses.field(default_factory=PromptFormat)

    @cached_property
    def roles(self) -> Roles:
        """The roles of the inputs in generation."""
        return roles_of(self.source)

    def advance(self, inputs: Values, cache: Values | None = None) -> tuple[torch.Tensor, Values]:
        """Return logits [B, S, V] of all tokens, and an empty cache."""
        with torch.no_grad():
            found = dict(zip(self.source.outputs, run_by_name(self.source, inputs), strict=True))
        return found[self.roles.logits], {}

    def select(self, cache: Values, rows: torch.Tensor) -> Values:
        """Nothing."""
        return {}


def _check(inputs: Values, cache: Values, roles: Roles) -> None:
    """Check that the cache belongs to the first tokens of these rows."""
    past = cache.get("past_key_0")
    if past is None or roles.tokens not in inputs:
        return
    rows, length = inputs[roles.tokens].shape
    if len(past) != rows:
        raise DataError(
            f"the cache has {len(past)} rows, but {roles.tokens} has {rows}",
            ["select the rows of the cache first: decoder.select(cache, rows)"],
        )
    if past.shape[2] >= length:
        raise DataError(
            f"the cache has {past.shape[2]} tokens, but {roles.tokens} only {length}",
            ["pass the inputs of all tokens, cached and new"],
        )


def with_kv_cache(model: Graph | ReprogrammedModel) -> CachedDecoder:
    """Derive the prefill and decode graphs, which have a KV cache, from a graph or a task.

    They are derived from the graph alone, and run to prove that they compute the same. They share
    the weights and the program of ``model``, and follow their changes. A prompt of tokens in the
    program is stored as keys and values first (:func:`graphprog.precompute`), and does not follow
    later training.

    Args:
        model: a causal decoder, or an encoder-decoder, captured with a dynamic number of tokens;
            with or without a program.

    Raises:
        PassError: an operation reads other tokens in a way that cannot be cached; the message has
            operation, module and source line. Or the program's prompt cannot be precomputed.
        ProgramError: ``model`` is neither a graph nor a task.

    Example:
        >>> decoder = gp.with_kv_cache(language)  # once, for many calls
        >>> texts = gp.generate(decoder, ["Hi", "Hello"], max_new_tokens=4)
    """
    if isinstance(model, ReprogrammedModel):
        model = with_stored_prompt(model)
    graph, prompt_format = graph_and_format(model)
    source = matched(graph)
    return CachedDecoder(source, ExposeKV()(source), CacheKV()(source), prompt_format)


def with_stored_prompt(task: ReprogrammedModel) -> ReprogrammedModel:
    """Return a task whose prompt of tokens is stored as keys and values, if it has one.

    Raises:
        PassError: the prompt cannot be stored.
    """
    prompted = any(isinstance(part, Concatenative) for part in task.spec.acting)
    if not prompted or not has_prompt(matched(task.graph).code):
        return task
    try:
        return precompute(task)
    except ProgramError as error:
        raise PassError(
            f"a prompt among the tokens cannot be cached unless it is precomputed: {error.what}",
            ["gp.generate(task, prompts, use_cache=False)", *error.remedies],
        ) from error


def graph_and_format(model: Graph | ReprogrammedModel) -> tuple[Graph, PromptFormat]:
    """Return the graph of a graph or a task, and its prompt format.

    Raises:
        ProgramError: ``model`` is neither a graph nor a task.
    """
    if isinstance(model, ReprogrammedModel):
        return model.graph, PromptFormat.of(model.spec, model.tokenizer)
    if isinstance(model, Graph):
        return model, PromptFormat.of(Program(), model.tokenizer)
    raise ProgramError(
        f"a graph or a task is needed, not a {type(model).__name__}",
        ["capture the model first: gp.capture(model, (example,))"],
    )
