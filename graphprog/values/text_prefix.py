"""Text prefixes: keys and values of given tokens, computed once at compilation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

from graphprog.errors import ProgramError
from graphprog.ir.graph import Graph
from graphprog.ir.ops import ancestors
from graphprog.spec.registry import Spec, spec
from graphprog.values.context import BuildContext
from graphprog.values.source_activations import Lookup, values_at


@spec("text-prefix")
@dataclasses.dataclass(frozen=True)
class TextPrefix(Spec):
    """Keys and values of a text, computed once when the program is compiled.

    With this prefix, a causal model computes for a query what it computes for the text followed by
    the query. Compilation verifies this and refuses models in which the text attends to the query.
    If learnable, training starts from the text, as for a cartridge (Eyuboglu et al., 2025).

    Attributes:
        ids: token ids.
        learnable: whether training changes it.

    Example:
        >>> read = gp.Prefix(value=gp.TextPrefix(tuple(tokenizer("Be brief. ")["input_ids"])))
        >>> task = gp.compile(language, gp.Program([read]))
        >>> assert read.length == 10
    """

    ids: tuple[int, ...]
    learnable: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(int(number) for number in self.ids))
        if not self.ids:
            raise ProgramError(
                "a text prefix has no tokens", ["give ids: gp.TextPrefix((101, 2003, 102))"]
            )

    def rows(self, context: BuildContext, nodes: Sequence[str], repeats: int) -> nn.Module:
        """Make the module that holds keys and values of the text.

        Args:
            context: context of the operations; the source of its graph is run on the text.
            nodes: names of keys and values [B, H, S, d] of each operation, in order.
            repeats: how often each key head is repeated.

        Raises:
            ProgramError: attention does not depend on token ids, or an id is out of range; another
                part of the program inserts entries, which keys and values of the text would lack.
        """
        graph, where = context.graph, context.where
        assert graph is not None
        upstream = {one.name for name in nodes for one in ancestors(graph.nodes[name])}
        longer = [
            one.name
            for one in graph.insertions
            if one.kind in ("axis", "prefix") and one.result in upstream
        ]
        if longer:
            raise ProgramError(
                f"{where}: keys and values of a text are those of the source, but the program "
                f"also inserts entries: {', '.join(longer)}",
                [
                    "set kept='text' on the text parts of the program",
                    "call gp.precompute(task) for the other part, once it is trained",
                ],
            )
        lookup = lookup_of(graph, where)
        found = run_on(lookup.source, lookup, self.ids, tuple(nodes))
        heads = [value[0, ::repeats] for value in found]
        rows = torch.stack(heads).permute(2, 0, 1, 3).flatten(1)
        wide = torch.promote_types(rows.dtype, torch.float32)
        return Rows(rows.to(wide), context.value.dtype, self.learnable)


class Rows(nn.Module):
    """Forward: some value, which is not used -> rows [P, n], in the dtype of the interface."""

    value: torch.Tensor

    def __init__(self, rows: torch.Tensor, dtype: torch.dtype, learnable: bool) -> None:
        super().__init__()
        self.dtype = dtype
        if learnable:
            self.value = nn.Parameter(rows)
        else:
            self.register_buffer("value", rows, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The rows."""
        return self.value if self.value.dtype == self.dtype else self.value.to(self.dtype)


def lookup_of(graph: Graph, where: str) -> Lookup:
    """Find the token-id input from which attention at an interface is computed."""
    return Lookup.of(graph, where)


def run_on(
    graph: Graph, lookup: Lookup, ids: Sequence[int], names: tuple[str, ...]
) -> tuple[torch.Tensor, ...]:
    """Compute values of nodes for one row of tokens."""
    nodes = [graph.nodes[name] for name in names]
    return values_at(graph, nodes, lookup.inputs(ids), lookup.where)
