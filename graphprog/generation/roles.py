"""What the inputs of a graph are to someone who writes token after token."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import fx

from graphprog.errors import DataError, ProgramError
from graphprog.graph import Graph
from graphprog.inputs import InputSpec, inputs_of
from graphprog.lookups import ids_of, rows_of
from graphprog.passes.sides import inferred_meaning
from graphprog.passes.stretch import expression, is_symbolic
from graphprog.symbols import size_text

MEANINGS = ("tokens", "present", "repeated", "positions", "")


@dataclasses.dataclass(frozen=True)
class Roles:
    """Which input holds the tokens, and how the others grow with them.

    Attributes:
        inputs: of the graph.
        tokens: name of the input of token ids [B, S] that are written.
        axis: letter of S.
        meanings: of every input that has the axis: ``tokens``; ``present``, 1 for a new token;
            ``repeated``, as the token before; ``positions``, one more than the token before;
            empty where it is not known.
        logits: name of the result [B, S, V].
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
        """Name of the input [B, S] that says which tokens are present."""
        found = [name for name, meaning in self.meanings.items() if meaning == "present"]
        plain = [spec.name for spec in self.inputs if spec.name in found and len(spec.shape) == 2]
        return plain[0] if plain else None

    def dim(self, name: str) -> int:
        """The dimension of an input that counts tokens."""
        shape = next(spec.shape for spec in self.inputs if spec.name == name)
        return shape.index(self.axis)

    def grown(
        self, inputs: Mapping[str, torch.Tensor], new: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The inputs with one more token in each row.

        Args:
            inputs: by name.
            new: ids [B].

        Raises:
            DataError: how an input goes on is not known.
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
                    f"how input {name!r} goes on for a new token is not known",
                    [f'sides={{"{name}": "positions"}}, or "present", or "repeated"'],
                )
            found[name] = torch.cat([value, more], dim)
        return found


def roles_of(graph: Graph) -> Roles:
    """Find them: tokens are looked up in the largest table of those that the last attention reads.

    Raises:
        ProgramError: nothing in the graph is looked up by ids, or its logits are not told.
    """
    tables: dict[fx.Node, int] = {}
    for node in graph.code.nodes:
        ids = ids_of(node)
        if ids is not None and ids.meta["val"].ndim == 2 and is_symbolic(ids.meta["val"].shape[1]):
            tables[ids] = max(rows_of(node), tables.get(ids, 0))
    logits = _logits(graph)
    length = expression(graph.output_nodes[graph.outputs.index(logits)].meta["val"].shape[1])
    found = [ids for ids in tables if expression(ids.meta["val"].shape[1]) == length]
    if not found:
        raise ProgramError(
            f"{graph.name}: no input of token ids [B, S], with S varying, leads to its {logits}",
            ['capture with dynamic_axes={"input_ids": {0: "batch", 1: "sequence"}}'],
        )
    tokens = max(found, key=tables.__getitem__)
    meanings = {}
    for node in graph.placeholders:
        if any(expression(size) == length for size in node.meta["val"].shape):
            looked_up = "repeated" if inferred_meaning(node) == "zero" else ""
            plain = inferred_meaning(node) == "present"
            meanings[str(node.target)] = "present" if plain else looked_up
    meanings[str(tokens.target)] = "tokens"
    axis = str(size_text(tokens.meta["val"].shape[1], graph.symbols))
    return Roles(inputs_of(graph), str(tokens.target), axis, meanings, logits, tables[tokens])


def _logits(graph: Graph) -> str:
    """Name of the result with a number for every token of the vocabulary, at every token."""
    names = [
        name
        for name, node in zip(graph.outputs, graph.output_nodes, strict=True)
        if isinstance(node, fx.Node)
        and isinstance(value := node.meta.get("val"), torch.Tensor)
        and value.ndim == 3
        and value.is_floating_point()
    ]
    key = graph.aliases.get("logits", "").removeprefix("output:")
    if key in names or names:
        return key if key in names else names[0]
    raise ProgramError(
        f"{graph.name} returns no logits [B, S, V]: its results are {', '.join(graph.outputs)}",
        ["an alignment that keeps all tokens: Identity or Parse"],
    )
