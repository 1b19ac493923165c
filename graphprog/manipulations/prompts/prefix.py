"""Prefix tuning: keys and values before those of the tokens."""

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
    """Prefix of keys and values before those that attention reads.

    At ``attention[*]`` this is prefix tuning (Li & Liang, ACL 2021) and, with a head, P-tuning v2
    (Liu et al., ACL 2022). The number of queries does not change. Masks are those that the model
    computes for a sequence with ``length`` more entries at the beginning, so relative positions,
    windows and padding stay correct; keys of the prefix are not rotated.

    Attributes:
        at: attention operations, such as ``attention[*]``, ``encoder.attention[*]``,
            ``decoder.cross_attention[2:5]``; all must have the same heads.
        name: name of the part; the kind if empty.
        length: number of keys, 0 or more.
        value: keys and values of all these operations, [length, operations x 2 x key heads x
            head size]: for each operation the keys, then the values, head by head. Learned, fixed,
            reparameterized (:mod:`graphprog.reparameterized`), or those of a text,
            :class:`TextPrefix`, whose number of tokens is then the length.
        positions: ``shift`` counts positions of the tokens from ``length``, as if the prefix were
            tokens before them; ``keep`` counts from 0. Cross attention does not shift.
        input_roles: roles of the model's side inputs that have the axis; see
            :class:`Concatenative`.
        gates: if given, attention to the prefix is computed separately, and
            gate · softmax(q m^T) v_m is added to the result of attention, as in LLaMA-Adapter
            (Zhang et al., ICLR 2024): one gate for ``all`` heads of an operation, or one for
            ``each`` head, which start at 0. Masks and positions are then unchanged.

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
            raise ProgramError(f"{self.kind}: length {self.length} is negative")
        require_choice(self.kind, "gates", self.gates, GATES)
        require_choice(self.kind, "positions", self.positions, POSITIONS)

    def build(self, context: BuildContext) -> PrefixEntries:
        """Make the module that computes keys and values of all operations of the context.

        Raises:
            ProgramError: the operations have different heads, or the value has another shape.
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
        return PrefixEntries(rows, shape, repeats, count)

    def _heads(self, found: list[Attention], where: str) -> tuple[int, int, int]:
        """Number of key heads, head size, and repeats per head, the same for all operations."""
        sizes = set()
        for one in found:
            key, value, repeats = fake_tensor(one.key), fake_tensor(one.value), one.repeats
            heads = int(key.shape[1]) // repeats
            sizes.add((heads, int(key.shape[3]), int(value.shape[3]), repeats))
        if len(sizes) > 1:
            shown = ", ".join(f"{count} x {width}" for count, width, *_ in sorted(sizes))
            raise ProgramError(
                f"{self.at}: the operations have different key heads: {shown}",
                ["use one Prefix per group of equal operations: gp.Prefix(at='attention[0:3]')"],
            )
        heads, width, value_width, repeats = sizes.pop()
        if width != value_width:
            raise ProgramError(f"{where}: keys have size {width}, but values have {value_width}")
        return heads, width, repeats


class PrefixEntries(nn.Module):
    """Forward: some value, of which only the dtype matters -> keys and values, [H, P, d] each.

    With gates, one [n, 1, 1] for each operation follows, which starts at zero.
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
