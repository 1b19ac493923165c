"""Inputs of a graph that reads tokens: ids, attention mask, and others."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import fx

from graphprog.errors import DataError, GraphprogError, ProgramError
from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.graph import Graph
from graphprog.ir.ops import schema_name

KEEPS_NUMBERS = frozenset(
    {"aten::view", "aten::reshape", "aten::to", "aten::_to_copy", "aten::clone"}
    | {"aten::contiguous", "aten::unsqueeze", "aten::squeeze"}
)
"""Operations that return the ids that they read, in another shape or dtype."""


@dataclasses.dataclass(frozen=True)
class TokenLookup:
    """A lookup of the ids of an input in a table.

    Attributes:
        ids: the input.
        node: the rows of the table at these ids.
    """

    ids: fx.Node
    node: fx.Node

    @property
    def rows(self) -> int:
        """Number of rows of the table."""
        return int(fake_tensor(self.node.args[0]).shape[0])

    @classmethod
    def of(cls, node: fx.Node) -> TokenLookup | None:
        """Return the lookup that an operation is; None for any other operation."""
        if schema_name(node) != "aten::embedding":
            return None
        ids = node.args[1]
        while isinstance(ids, fx.Node) and schema_name(ids) in KEEPS_NUMBERS:
            ids = ids.args[0]
        if not isinstance(ids, fx.Node) or ids.op != "placeholder":
            return None
        return None if fake_tensor(ids).is_floating_point() else cls(ids, node)


def lookups_of(nodes: Iterable[fx.Node]) -> list[TokenLookup]:
    """Return the lookups among some operations, in their order."""
    return [found for node in nodes if (found := TokenLookup.of(node)) is not None]


def table_rows(graph: Graph) -> dict[str, int]:
    """Return the number of rows of the smallest table in which the ids of each input are looked up.

    Ids that are changed before the lookup are not among them.
    """
    found: dict[str, int] = {}
    for one in lookups_of(node for node in graph.code.nodes if node.users):
        name = str(one.ids.target)
        found[name] = min(one.rows, found.get(name, one.rows))
    return found


def largest_by_input(lookups: Iterable[TokenLookup]) -> dict[fx.Node, TokenLookup]:
    """Return the lookup of each input in its largest table."""
    found: dict[fx.Node, TokenLookup] = {}
    for one in lookups:
        if one.ids not in found or one.rows > found[one.ids].rows:
            found[one.ids] = one
    return found


def vocabulary_lookups(
    lookups: Collection[TokenLookup], logits: Collection[int] = ()
) -> list[TokenLookup]:
    """Return the lookups of tokens: in a table with a row for each logit, or in the largest one.

    Args:
        lookups: the lookups to choose from.
        logits: sizes that may be the number of logits.
    """
    sizes = {one.rows for one in lookups}
    vocabulary = max(sizes & set(logits) or sizes, default=0)
    return [one for one in lookups if one.rows == vocabulary]


@dataclasses.dataclass(frozen=True)
class TokenInputs:
    """The token ids, attention mask and other inputs of a graph.

    Attributes:
        ids: name of the input that is looked up in a table with one row per logit, or in the
            largest table if there are no logits.
        mask: name of the input that is 1 for a token: boolean, or integers with ``mask`` in its
            name; empty if there is none.
        others: names of the remaining inputs.
        length: length of a row; None if it is dynamic.
        dtypes: dtypes of the inputs by name, in the order of the graph.
        vocabulary: number of rows of that table.
    """

    ids: str
    mask: str
    others: tuple[str, ...]
    length: int | None
    dtypes: Mapping[str, torch.dtype]
    vocabulary: int

    @classmethod
    def of(cls, graph: Graph) -> TokenInputs:
        """Find the token inputs of a graph.

        Raises:
            ProgramError: no input, or more than one, is looked up as the ids of a text.
        """
        lookups = [one for one in lookups_of(graph.code.nodes) if fake_tensor(one.ids).ndim == 2]
        tables = largest_by_input(lookups)
        hidden = {fake_tensor(one.node).shape[-1] for one in lookups}
        widths = [fake_value(node).shape[-1] for node in _results(graph)]
        logits = {size for size in widths if isinstance(size, int)} - hidden
        chosen = vocabulary_lookups(tables.values(), logits)
        if len(chosen) != 1:
            names = ", ".join(str(one.ids.target) for one in chosen)
            raise ProgramError(
                f"{graph.name} takes no input of token ids"
                if not chosen
                else f"{graph.name} takes several inputs of token ids: {names}",
                ["call task(...) with tensors, from task.prompt.rows(task.prompt.texts(queries))"],
            )
        (tokens,) = chosen
        ids = tokens.ids
        rest = [node for node in graph.placeholders if node is not ids]
        masks = [node for node in rest if node not in tables and _is_mask(node, ids)]
        named = [node for node in masks if "mask" in str(node.target)]
        mask = next(iter(named or masks), None)
        length = fake_value(ids).shape[1]
        return cls(
            ids=str(ids.target),
            mask="" if mask is None else str(mask.target),
            others=tuple(str(node.target) for node in rest if node is not mask),
            length=length if isinstance(length, int) else None,
            dtypes={str(node.target): fake_value(node).dtype for node in graph.placeholders},
            vocabulary=tokens.rows,
        )

    def tensors(
        self, rows: Sequence[Sequence[int]], pad: int, known: Mapping[str, int]
    ) -> dict[str, torch.Tensor]:
        """Return all inputs for rows of tokens, by name, each [B, S]; padded on the right.

        Args:
            rows: tokens of each row.
            pad: id of the padding token.
            known: values of other inputs, the same at every token.

        Raises:
            DataError: the meaning of an input is unknown; rows are too long, or of several lengths
                without an attention mask.
        """
        if unknown := [name for name in self.others if name not in known]:
            raise DataError(
                f"the graph also takes {', '.join(unknown)}, whose values for a text are unknown",
                [
                    "call task(...) with your own tensors",
                    "capture the model without that argument",
                ],
            )
        longest = max(map(len, rows))
        if self.length is not None and longest > self.length:
            raise DataError(
                f"a text has {longest} tokens, but the graph takes {self.length}",
                [
                    "use shorter queries, or fewer demonstrations: limit=",
                    "capture with dynamic_axes={'input_ids': {0: 'batch', 1: 'sequence'}}",
                ],
            )
        size = self.length or longest
        if not self.mask and any(len(row) != size for row in rows):
            raise DataError(
                "the texts have several lengths, but the graph takes no attention mask",
                [
                    "capture the model with its attention_mask",
                    "pass texts of one length at a time",
                ],
            )
        filled = {
            self.ids: [[*row, *[pad] * (size - len(row))] for row in rows],
            self.mask: [[1] * len(row) + [0] * (size - len(row)) for row in rows],
            **{name: [[known[name]] * size] * len(rows) for name in self.others},
        }
        return {name: torch.tensor(filled[name], dtype=kind) for name, kind in self.dtypes.items()}


def _is_mask(node: fx.Node, ids: fx.Node) -> bool:
    value, like = fake_tensor(node), fake_tensor(ids)
    # two inputs may have different batch symbols if the model never joined them
    if value.ndim != 2 or str(value.shape[1]) != str(like.shape[1]):
        return False
    if value.dtype.is_floating_point:
        return False
    return value.dtype == torch.bool or "mask" in str(node.target)


def writes_on(graph: Graph) -> bool:
    """Whether a graph returns logits over its vocabulary for the next token of every token."""
    try:
        inputs = TokenInputs.of(graph)
    except ProgramError:
        return False
    ids = next(node for node in graph.placeholders if node.target == inputs.ids)
    length = str(fake_tensor(ids).shape[1])
    scores = [node for node in _results(graph) if _by_token(node, length)]
    wide = any(fake_tensor(node).shape[-1] == inputs.vocabulary for node in scores)
    return wide and sees_ahead(graph) is False


def sees_ahead(graph: Graph) -> bool | None:
    """Whether the results of a graph for a token depend on later ones, tried on four tokens.

    None if no output or block has a value per token, or the graph cannot run on ids.
    """
    try:
        inputs = TokenInputs.of(graph)
    except ProgramError:
        return None
    places = _results(graph)
    hidden = [name for name in graph.aliases if name.split(".")[-1].startswith("hidden[")]
    places += [graph.nodes[graph.interfaces().resolve(name).node] for name in hidden[-1:]]
    ids = next(node for node in graph.placeholders if node.target == inputs.ids)
    length = str(fake_tensor(ids).shape[1])
    by_token = [node for node in places if _by_token(node, length)]
    if not by_token or inputs.vocabulary < 2:
        return None
    found = []
    for row in ([0, 0, 1, 1], [0, 0, 0, 0]):
        try:
            given = inputs.tensors([row], 0, dict.fromkeys(inputs.others, 0))
            (value,) = graph.evaluate(by_token[:1], list(given.values())).values()
        except (GraphprogError, IndexError, RuntimeError):
            return None
        found.append(value[0, :2])
    return not torch.equal(*found)


def _results(graph: Graph) -> list[fx.Node]:
    """Return the results of a graph with at least one dimension."""
    nodes = [node for node in graph.output_nodes if isinstance(node, fx.Node)]
    return [node for node in nodes if getattr(node.meta.get("val"), "ndim", 0) > 0]


def _by_token(node: fx.Node, length: str) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.ndim < 3:
        return False
    return str(value.shape[1]) == length
