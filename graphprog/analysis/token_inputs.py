"""The inputs of a graph that reads tokens: ids, what says which are there, and the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import fx

from graphprog.errors import DataError, GraphprogError, ProgramError
from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.graph import Graph
from graphprog.ir.ops import ids_of, rows_of


@dataclasses.dataclass(frozen=True)
class TokenInputs:
    """Which input is which.

    Attributes:
        ids: name of the input that is looked up in a table with a row for each logit, or in the
            largest table where there are no logits.
        mask: name of the input that is 1 where there is a token: of truth values, or of whole
            numbers with ``mask`` in its name; empty where there is none.
        others: names of the remaining inputs.
        length: of a row; None where it varies.
        dtypes: of the inputs by name, in the order of the graph.
        vocabulary: rows of that table.
    """

    ids: str
    mask: str
    others: tuple[str, ...]
    length: int | None
    dtypes: Mapping[str, torch.dtype]
    vocabulary: int

    @classmethod
    def of(cls, graph: Graph) -> TokenInputs:
        """Find them.

        Raises:
            ProgramError: nothing, or more than one input, is looked up as the ids of a text.
        """
        tables: dict[fx.Node, int] = {}
        hidden: set[int] = set()
        for node in graph.code.nodes:
            if (found := ids_of(node)) is not None and fake_tensor(found).ndim == 2:
                tables[found] = max(tables.get(found, 0), rows_of(node))
                hidden.add(fake_tensor(node).shape[-1])
        widths = [fake_value(node).shape[-1] for node in _results(graph)]
        logits = {size for size in widths if isinstance(size, int)} - hidden
        largest = max(logits & set(tables.values()) or tables.values(), default=0)
        chosen = [node for node, rows in tables.items() if rows == largest]
        if len(chosen) != 1:
            names = ", ".join(str(node.target) for node in chosen)
            raise ProgramError(
                f"{graph.name} takes no input of token ids"
                if not chosen
                else f"{graph.name} takes several inputs of token ids: {names}",
                ["task(...) on tensors; task.prompt.rows(task.prompt.texts(queries)) are tokens"],
            )
        (ids,) = chosen
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
            vocabulary=largest,
        )

    def tensors(
        self, rows: Sequence[Sequence[int]], pad: int, known: Mapping[str, int]
    ) -> dict[str, torch.Tensor]:
        """All inputs for rows of tokens, by name, each [B, S]; padded behind.

        Args:
            rows: tokens of each row.
            pad: what stands where a row has none.
            known: for other inputs, what they have at every token.

        Raises:
            DataError: an input whose meaning is not known; rows that are too long, or of several
                lengths where nothing says which tokens are there.
        """
        if unknown := [name for name in self.others if name not in known]:
            raise DataError(
                f"the graph also takes {', '.join(unknown)}, and what a text gives it is not known",
                ["task(...) on tensors of your own", "capture the model without that argument"],
            )
        longest = max(map(len, rows))
        if self.length is not None and longest > self.length:
            raise DataError(
                f"a text has {longest} tokens, the graph takes {self.length}",
                [
                    "shorter queries, or fewer demonstrations: limit=",
                    "dynamic_axes={'input_ids': {0: 'batch', 1: 'sequence'}} at capture",
                ],
            )
        size = self.length or longest
        if not self.mask and any(len(row) != size for row in rows):
            raise DataError(
                "the texts have several lengths, and the graph takes no mask that could say so",
                ["capture the model with its attention_mask", "texts of one length at a time"],
            )
        filled = {
            self.ids: [[*row, *[pad] * (size - len(row))] for row in rows],
            self.mask: [[1] * len(row) + [0] * (size - len(row)) for row in rows],
            **{name: [[known[name]] * size] * len(rows) for name in self.others},
        }
        return {name: torch.tensor(filled[name], dtype=kind) for name, kind in self.dtypes.items()}


def _is_mask(node: fx.Node, ids: fx.Node) -> bool:
    value, like = fake_tensor(node), fake_tensor(ids)
    # the batches of two inputs may be told apart, where the model never joined them
    if value.ndim != 2 or str(value.shape[1]) != str(like.shape[1]):
        return False
    if value.dtype.is_floating_point:
        return False
    return value.dtype == torch.bool or "mask" in str(node.target)


def writes_on(graph: Graph) -> bool:
    """Whether a graph scores, for every token, which one of its vocabulary comes next."""
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
    """Whether what a graph computes for a token depends on later ones, tried on four tokens.

    None where no output and no block gives a value for each token, or it cannot be run on ids.
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
    """What a graph returns, of one dimension at least."""
    nodes = [node for node in graph.output_nodes if isinstance(node, fx.Node)]
    return [node for node in nodes if getattr(node.meta.get("val"), "ndim", 0) > 0]


def _by_token(node: fx.Node, length: str) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.ndim < 3:
        return False
    return str(value.shape[1]) == length
