"""The concatenative operator at attention: keys and values that no token has."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

from graphprog.errors import ProgramError
from graphprog.ir.graph import Graph
from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.meanings import checked_meanings
from graphprog.rewriting.fake_tracing import fake_mode_of, running
from graphprog.spec.registry import spec
from graphprog.values.base import Fixed, Learnable
from graphprog.values.entries import Wanted, entries_module
from graphprog.values.reparameterized import Reparameterized
from graphprog.values.stored import Stored
from graphprog.values.text_prefix import TextPrefix

POSITIONS = ("shift", "keep")
GATES = ("", "all", "each")


@spec("prefix")
@dataclasses.dataclass(frozen=True)
class Prefix(Manipulation):
    """Put keys and values in front of those that attention reads.

    At ``attention[*]`` this is prefix tuning (Li & Liang, ACL 2021) and, with a head, P-tuning v2
    (Liu et al., ACL 2022). Queries keep their number. Masks are what the model computes for a
    sequence with ``length`` more entries in front, so that relative positions, windows and paddings
    hold; keys of the memory are not rotated.

    Attributes:
        at: attention operations, such as ``attention[*]``, ``encoder.attention[*]``,
            ``decoder.cross_attention[2:5]``; all with the same heads.
        name: of the program's part; the kind where empty.
        length: how many keys, 0 or more.
        value: keys and values of all these operations, [length, operations x 2 x key heads x
            head size]: for an operation after the other the keys, then the values, head by head.
            Learnt, fixed, computed as :mod:`graphprog.reparameterized` does, or those of a text,
            :class:`TextPrefix`, whose tokens are then the length.
        positions: ``shift`` lets the tokens count from ``length`` on, as if the memory were
            tokens in front of them; ``keep`` from 0. Cross attention shifts none.
        input_roles: meaning of the model's other inputs where they carry the axis; see
            :class:`Concatenative`.
        gates: where given, the memory is attended to by itself, and gate · softmax(q m^T) v_m is
            added to what attention gives, as LLaMA-Adapter does (Zhang et al., ICLR 2024): a gate
            for ``all`` heads of an operation, or one for ``each`` that keys have there, from 0.
            Masks and positions then stay as they are.
    """

    at: str = dataclasses.field(default="attention[*]", kw_only=True)
    length: int = 10
    value: Learnable | Fixed | Reparameterized | TextPrefix | Stored = dataclasses.field(
        default_factory=lambda: Learnable("normal", 0.02)
    )
    positions: str = "shift"
    input_roles: tuple[tuple[str, str], ...] = ()
    gates: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.value, TextPrefix):
            object.__setattr__(self, "length", len(self.value.ids))
        object.__setattr__(self, "input_roles", checked_meanings(self.input_roles))
        if self.length < 0:
            raise ProgramError(f"{self.kind}: a length of {self.length} keys is negative")
        if self.gates not in GATES:
            raise ProgramError(f"gates {self.gates!r} is unknown; known: all, each, and none: ''")
        if self.positions not in POSITIONS:
            raise ProgramError(
                f"positions {self.positions!r} is unknown; known: {', '.join(POSITIONS)}"
            )

    def build(self, value: torch.Tensor, where: str, generator: torch.Generator) -> nn.Module:
        """Make the module for one operation with these keys; see :meth:`build_memory`."""
        return self.build_memory([(value, value, 1)], where, generator)

    def build_memory(
        self,
        places: Sequence[tuple[torch.Tensor, torch.Tensor, int]],
        where: str,
        generator: torch.Generator,
        graph: Graph | None = None,
        nodes: Sequence[str] = (),
    ) -> MemoryEntries:
        """Make the module that gives keys and values.

        Args:
            places: of each operation the fake keys and values [B, H, S, d] that it reads, and how
                often it repeats each head.
            where: interface key, for messages.
            generator: source of random initial values.
            graph: what the operations lie in.
            nodes: names of their keys and values there, in turn.

        Raises:
            ProgramError: the operations have other heads than each other, or the value another
                shape.
        """
        sizes = {
            (int(key.shape[1]) // repeats, int(key.shape[3]), int(value.shape[3]), repeats)
            for key, value, repeats in places
        }
        if len(sizes) > 1:
            told = ", ".join(f"{count} x {width}" for count, width, *_ in sorted(sizes))
            raise ProgramError(
                f"{self.at}: the operations have different key heads: {told}",
                ["a Prefix for each group of like operations, such as at='attention[0:3]'"],
            )
        heads, width, value_width, repeats = sizes.pop()
        if width != value_width:
            raise ProgramError(f"{where}: keys of {width} and values of {value_width} numbers")
        like = places[0][0]
        shape = (self.length, len(places), 2, heads, width)
        count = {"": 0, "all": 1, "each": heads * repeats}[self.gates]
        if isinstance(self.value, TextPrefix):
            assert graph is not None
            rows = self.value.rows(graph, where, nodes, repeats, like.dtype)
            return MemoryEntries(rows, shape, repeats, count)
        with running(fake_mode_of(like)):
            row = len(places) * 2 * heads * width
            whole = like.new_empty((like.shape[0], self.length, row))
        entries = entries_module(self.value, Wanted(whole, 1, where, generator, graph))
        return MemoryEntries(entries, shape, repeats, count)


class MemoryEntries(nn.Module):
    """Forward: some value, of which only the type counts -> keys and values, [H, P, d] each.

    With gates, [n, 1, 1] for each operation behind them, from zero.
    """

    def __init__(
        self, rows: nn.Module, shape: tuple[int, ...], repeats: int, gates: int = 0
    ) -> None:
        super().__init__()
        self.rows = rows
        self.shape = shape
        self.repeats = repeats
        self.gates = nn.Parameter(torch.zeros(shape[1], gates, 1, 1)) if gates else None

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Keys of the first operation, its values, keys of the second, ..."""
        rows: torch.Tensor = self.rows(x)
        heads = rows.reshape(self.shape).permute(1, 2, 3, 0, 4)
        if self.repeats > 1:
            heads = heads.repeat_interleave(self.repeats, 2)
        flat = heads.flatten(0, 1)
        entries = tuple(flat.select(0, number) for number in range(flat.shape[0]))
        if self.gates is None:
            return entries
        gates = self.gates.to(rows.dtype)
        return (*entries, *(gates.select(0, number) for number in range(gates.shape[0])))
