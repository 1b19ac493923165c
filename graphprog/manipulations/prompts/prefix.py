"""The concatenative operator at attention: keys and values that no token has."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import nn

from graphprog.analysis.attention import Attention
from graphprog.errors import ProgramError
from graphprog.ir.fake import fake_tensor
from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.meanings import checked_meanings
from graphprog.spec.checks import require_choice
from graphprog.spec.registry import spec
from graphprog.values.base import Fixed, Learnable, Stored
from graphprog.values.context import BuildContext
from graphprog.values.entries import entries_module
from graphprog.values.reparameterized import Reparameterized
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

    Example:
        >>> task = gp.compile(language, gp.Program([gp.Prefix(at="attention[*]", length=4)]))
        >>> task.program.prefix.rows.value.shape  # two layers of keys and values
        torch.Size([4, 64])
    """

    lowering: ClassVar[str] = "extend-kv"

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
        require_choice(self.kind, "gates", self.gates, GATES)
        require_choice(self.kind, "positions", self.positions, POSITIONS)

    def build(self, context: BuildContext) -> MemoryEntries:
        """Make the module that gives keys and values of all operations of the context.

        Raises:
            ProgramError: the operations have other heads than each other, or the value another
                shape.
        """
        graph = context.graph
        assert graph is not None
        found = [Attention(graph.nodes[name]) for name in context.nodes]
        heads, width, repeats = self._heads(found, context.where)
        shape = (self.length, len(found), 2, heads, width)
        count = {"": 0, "all": 1, "each": heads * repeats}[self.gates]
        rows: nn.Module
        if isinstance(self.value, TextPrefix):
            names = [node.name for one in found for node in (one.key, one.value)]
            rows = self.value.rows(context, names, repeats)
        else:
            row = len(found) * 2 * heads * width
            entries = context.of_shape((self.length, row))
            rows = entries_module(self.value, dataclasses.replace(entries, axis=1))
        return MemoryEntries(rows, shape, repeats, count)

    def _heads(self, found: list[Attention], where: str) -> tuple[int, int, int]:
        """Key heads, their size, and how often an operation repeats each: of all the same."""
        sizes = set()
        for one in found:
            key, value, repeats = fake_tensor(one.key), fake_tensor(one.value), one.repeats
            heads = int(key.shape[1]) // repeats
            sizes.add((heads, int(key.shape[3]), int(value.shape[3]), repeats))
        if len(sizes) > 1:
            told = ", ".join(f"{count} x {width}" for count, width, *_ in sorted(sizes))
            raise ProgramError(
                f"{self.at}: the operations have different key heads: {told}",
                ["a Prefix for each group of like operations, such as at='attention[0:3]'"],
            )
        heads, width, value_width, repeats = sizes.pop()
        if width != value_width:
            raise ProgramError(f"{where}: keys of {width} and values of {value_width} numbers")
        return heads, width, repeats


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
