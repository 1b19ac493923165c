"""The meaning of inputs other than tokens: presence, types, positions or data."""

from __future__ import annotations

import dataclasses
import itertools
import math

import torch
from torch import fx

from graphprog.analysis.input_uses import Kind, Use, uses_of_input
from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import CASTS, schema_name

_EQUALS = frozenset({"aten::eq", "aten::ne"})
_ORDERS = frozenset({"aten::gt", "aten::ge", "aten::lt", "aten::le"})
_MASKS = {Kind.PRESENT, Kind.ABSENT, Kind.COMPARED}


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What an input means, as far as its uses in the graph determine it.

    Attributes:
        role: ``present`` or ``zero``; empty if the graph does not determine it.
        unclear: an operation that reads it and does not determine it.
    """

    role: str
    unclear: fx.Node | None = None


def inferred_meaning(node: fx.Node) -> Meaning:
    """Infer the meaning of an input from its uses in the graph.

    Numbers that are looked up in a table, also after views and shifts, are ``zero``; masks are
    ``present``, or ``zero`` if what is true is hidden; floats that are added are ``zero``.
    """
    uses = uses_of_input(node)
    value = fake_tensor(node)
    if value.is_floating_point():
        return _decided("zero", [one for one in uses if one.kind != Kind.ADDED])
    kinds = {one.kind for one in uses}
    unknown = [one for one in uses if one.kind == Kind.UNKNOWN]
    if not kinds & (_MASKS | {Kind.GATE}):
        unknown += [one for one in uses if one.kind == Kind.ADDED]
    if Kind.LOOKUP in kinds:
        return _decided("zero", unknown + _unlike_ids(uses, value.dtype))
    if {Kind.PRESENT, Kind.ABSENT} <= kinds:
        return Meaning("", next(one.node for one in uses if one.kind == Kind.ABSENT))
    if Kind.ABSENT in kinds:
        return _decided("zero", unknown)
    if value.dtype != torch.bool and not kinds & {Kind.PRESENT, Kind.GATE}:
        others = [one for one in uses if one.number not in (0, 1)]
        if others or not uses:
            return Meaning("", next((one.node for one in others), None))
    return _decided("present", unknown)


def _decided(role: str, against: list[Use]) -> Meaning:
    return Meaning("", against[0].node) if against else Meaning(role)


def _unlike_ids(uses: list[Use], dtype: torch.dtype) -> list[Use]:
    """Return the uses that numbers which are looked up do not have."""
    unlike = {Kind.GATE, Kind.ADDED} | (_MASKS if dtype == torch.bool else set())
    return [
        one
        for one in uses
        if one.kind in unlike or (one.kind == Kind.COMPARED and one.number is None)
    ]


def compared_with(node: fx.Node) -> list[int]:
    """Return the numbers that an input is compared with, such as the id of padding."""
    return sorted(_compared(uses_of_input(node), _EQUALS))


def _compared(uses: list[Use], names: frozenset[str]) -> set[int]:
    numbers = {
        one.number
        for one in uses
        if one.kind == Kind.COMPARED and one.number is not None and schema_name(one.node) in names
    }
    return {int(number) for number in numbers if number % 1 == 0}


def neutral_entry(node: fx.Node, meaning: str) -> bool | int | float:
    """Return the value of an input at inserted entries.

    For ids it is the smallest one with a row in every table that the model does not compare with
    anything, since one that it compares, such as the id of padding, would be taken for that.
    """
    value = fake_tensor(node)
    if value.dtype == torch.bool:
        return meaning == "present"
    if meaning == "present":
        return 1
    if value.is_floating_point():
        return 0.0
    uses = uses_of_input(node)
    firsts = [one.first for one in uses if one.kind == Kind.LOOKUP]
    if not firsts:
        return 0
    special = _compared(uses, _EQUALS | CASTS)
    if least := _compared(uses, _ORDERS) & {0, 1}:  # whether it is more than 0 asks for padding
        special |= {0} | least
    lowest = max(0, *(math.ceil(first) for first in firsts if first is not None), 0)
    return next(number for number in itertools.count(lowest) if number not in special)
