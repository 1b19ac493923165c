"""Roles of the inputs of a graph in generation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import fx

from graphprog.analysis.input_meaning import inferred_meaning
from graphprog.analysis.token_inputs import TokenLookup, lookups_of, vocabulary_lookups
from graphprog.errors import DataError, ProgramError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.inputs import InputSpec, inputs_of
from graphprog.ir.sizes import expression, is_symbolic, same_size
from graphprog.ir.symbols import size_text

MEANINGS = ("present", "repeated", "positions")


@dataclasses.dataclass(frozen=True)
class Roles:
    """Which input holds the tokens, and how the others grow with them.

    Attributes:
        inputs: inputs of the graph.
        tokens: name of the input of token ids [B, S].
        axis: letter of S.
        meanings: meaning of every input that has the axis: ``tokens``; ``present``, 1 for a new
            token; ``repeated``, the value of the previous token; ``positions``, one more than
            for the previous token; empty if unknown.
        logits: name of the result [B, S, V], or [B, P + S, V] after P inserted tokens.
        rows: size of the vocabulary.
    """

    inputs: tuple[InputSpec, ...]
    tokens: str
    axis: str
    meanings: Mapping[str, str]
    logits: str
    rows: int

    @property
    def mask(self) -> str | None:
        """Name of the attention mask [B, S], if there is one."""
        found = [name for name, meaning in self.meanings.items() if meaning == "present"]
        plain = [spec.name for spec in self.inputs if spec.name in found and len(spec.shape) == 2]
        return plain[0] if plain else None

    def dim(self, name: str) -> int:
        """Return the token dimension of an input."""
        shape = next(spec.shape for spec in self.inputs if spec.name == name)
        return shape.index(self.axis)

    def grown(
        self, inputs: Mapping[str, torch.Tensor], new: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Append one token to each row of the inputs.

        Args:
            inputs: inputs by name.
            new: ids [B].

        Raises:
            DataError: the role of an input is unknown.
        """
        found = dict(inputs)
        for name, meaning in self.meanings.items():
            value, dim = inputs[name], self.dim(name)
            last = value.narrow(dim, value.shape[dim] - 1, 1)
            if meaning == "tokens":
                more = new.to(value.device, value.dtype).reshape(last.shape)
            elif meaning == "present":
                more = torch.ones_like(last)
            elif meaning == "positions":
                more = last + 1
            elif meaning == "repeated" and bool((value == last).all()):
                more = last
            else:
                raise DataError(
                    f"how input {name!r} continues for a new token is unknown",
                    [f'pass input_roles={{"{name}": "positions"}}, or "present" or "repeated"'],
                )
            found[name] = torch.cat([value, more], dim)
        return found


def roles_of(graph: Graph) -> Roles:
    """Find the roles: the tokens are looked up in a table with one row per logit.

    If no such table exists, they are looked up in the largest table. Logits may have entries for
    tokens that a program inserted.

    Raises:
        ProgramError: the graph has no lookup of ids, or its logits cannot be determined.
    """
    lookup, logits = _tokens_and_logits(graph)
    tokens = lookup.ids
    length = expression(fake_tensor(tokens).shape[1])
    meanings = {}
    for node in graph.placeholders:
        if any(expression(size) == length for size in fake_tensor(node).shape):
            role = inferred_meaning(node).role
            meanings[str(node.target)] = "repeated" if role == "zero" else role
    meanings[str(tokens.target)] = "tokens"
    axis = str(size_text(fake_tensor(tokens).shape[1], graph.symbols))
    return Roles(inputs_of(graph), str(tokens.target), axis, meanings, logits, lookup.rows)


def _tokens_and_logits(graph: Graph) -> tuple[TokenLookup, str]:
    """Return the input of token ids, the lookup that reads it, and the name of the logits."""
    results = _results(graph)
    lookups = [
        one
        for one in lookups_of(graph.code.nodes)
        if fake_tensor(one.ids).ndim == 2 and is_symbolic(fake_tensor(one.ids).shape[1])
    ]
    pairs = []
    for name, value in results.items():
        leading = [one for one in lookups if _leads_to(one, value)]
        logits = {one.rows for one in leading if same_size(value.shape[2], one.rows)}
        pairs += [(one, name) for one in vocabulary_lookups(leading, logits)[:1]]
    if not pairs:
        raise ProgramError(
            f"{graph.name}: no input of token ids [B, S], with dynamic S, leads to "
            f"{', '.join(results)}",
            ['capture with dynamic_axes={"input_ids": {0: "batch", 1: "sequence"}}'],
        )
    named = graph.aliases.get("logits", "").removeprefix("output:")

    def fitness(pair: tuple[TokenLookup, str]) -> tuple[bool, bool, int]:
        one, name = pair
        return same_size(results[name].shape[2], one.rows), name == named, one.rows

    lookup, name = max(pairs, key=fitness)
    rows, width = fake_tensor(lookup.node.args[0]).shape
    if rows != width and same_size(results[name].shape[2], width):
        raise ProgramError(
            f"{graph.name}: {name} has the width of its embeddings, {width}, and no logit for "
            f"each of the {rows} tokens",
            ["capture the model with its language modeling head"],
        )
    return lookup, name


def _leads_to(lookup: TokenLookup, result: torch.Tensor) -> bool:
    """Whether a result has an entry for each token, and perhaps some for inserted ones."""
    length = expression(fake_tensor(lookup.ids).shape[1])
    return bool((expression(result.shape[1]) - length).is_number)


def _results(graph: Graph) -> dict[str, torch.Tensor]:
    """Return results that may be logits [B, S, V], by name."""
    found = {
        name: value
        for name, node in zip(graph.outputs, graph.output_nodes, strict=True)
        if isinstance(node, fx.Node)
        and isinstance(value := node.meta.get("val"), torch.Tensor)
        and value.ndim == 3
        and value.is_floating_point()
    }
    if found:
        return found
    raise ProgramError(
        f"{graph.name} returns no logits [B, S, V]: its results are {', '.join(graph.outputs)}",
        ["use an alignment that keeps all tokens: gp.Identity() or gp.Parse(...)"],
    )
