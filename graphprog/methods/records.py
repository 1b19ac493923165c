"""Records of published methods: what they are in the terms of the survey, and how to train them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

_Method = TypeVar("_Method", bound=Callable[..., object])

COORDINATES = {
    "configuration": ("learnable", "fixed"),
    "location": ("input", "embedding", "hidden"),
    "operator": ("additive", "concatenative", "parametric"),
    "alignment": ("identity", "structural", "statistical", "linear"),
}
"""The dimensions of the survey, and their values."""


@dataclasses.dataclass(frozen=True)
class Record:
    """A published method.

    Attributes:
        paper: authors.
        venue: venue and year.
        location: interfaces at which it acts, joined by ``+``.
        operator: how it acts, likewise.
        alignment: how outputs are read.
        parameters: trained numbers, as a formula: d is a width, L a number of layers, n a number of
            tokens, r a rank.
        protocol: how its authors train it.
        configuration: whether its values are learned.
        align: the alignment of the paper, as code; empty if the task decides.
    """

    paper: str
    venue: str
    location: str
    operator: str
    alignment: str
    parameters: str
    protocol: str
    configuration: str = "learnable"
    align: str = ""

    def __post_init__(self) -> None:
        for name, known in COORDINATES.items():
            given = getattr(self, name).split("+")
            assert set(given) <= set(known), f"{name} {given} of {self.paper}"


_RECORDS: dict[str, Record] = {}


def method(record: Record) -> Callable[[_Method], _Method]:
    """Keep the record of a method, which is decorated."""

    def kept(function: _Method) -> _Method:
        _RECORDS[function.__name__] = record
        return function

    return kept


class Table(Mapping[str, Record]):
    """Records of methods by name; prints as a table in Markdown."""

    def __init__(self, records: Mapping[str, Record]) -> None:
        self._records = dict(sorted(records.items()))

    def __getitem__(self, name: str) -> Record:
        return self._records[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __str__(self) -> str:
        names = ("configuration", "location", "operator", "alignment", "parameters", "protocol")
        lines = [
            f"| method | paper | {' | '.join(names)} |",
            "|" + "---|" * (len(names) + 2),
        ]
        for name, one in self._records.items():
            cells = [getattr(one, column).replace("|", "\\|") for column in names]
            if one.align:
                cells[3] += f": `{one.align}`"
            lines.append(f"| `{name}` | {one.paper}, {one.venue} | {' | '.join(cells)} |")
        return "\n".join(lines)

    __repr__ = __str__


def table() -> Table:
    """Return the records of all methods, which print as a table.

    Example:
        >>> records = gp.methods.table()
        >>> records["lora"].operator, len(records) == len(gp.methods.__all__)
        ('parametric', True)
    """
    return Table(_RECORDS)
