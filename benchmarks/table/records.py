"""What a row asks, what was measured, and the file of all results."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

OURS = "graphprog"


@dataclasses.dataclass(frozen=True)
class Ask:
    """A ratio to reach.

    Attributes:
        name: the part of the row's work; empty for all of it.
        bound: peer / graphprog is to be this at least, or graphprog / peer this at most.
        least: which of the two.
        quantity: ``time`` or ``memory``.
        peer: what is beside it, if not the row's.
    """

    name: str
    bound: float
    least: bool = True
    quantity: str = "time"
    peer: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        number: of the row.
        work: what is measured.
        peer: what it is measured beside.
        asks: the ratios to reach.
        gpu: whether it is measured on a GPU, too.
    """

    number: int
    work: str
    peer: str
    asks: tuple[Ask, ...]
    gpu: bool = False


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a row is measured.

    Attributes:
        device: ``cpu``, one thread of it, or ``cuda``.
        tiny: whether sizes are those of a test, which says nothing about speed.
        seconds: time for the turns of one measurement; there are three turns at least.
        hardware: name of the device for the table's column.
        machine: the machine and its libraries in words.
    """

    device: str
    tiny: bool
    seconds: float
    hardware: str
    machine: str

    @property
    def cuda(self) -> bool:
        """Whether a GPU is measured."""
        return self.device == "cuda"


@dataclasses.dataclass(frozen=True)
class Record:
    """One measured ratio, or why it is missing.

    Attributes:
        row: number of the row.
        work: of the row, or the part of it.
        peer: of the row.
        quantity: ``time`` or ``memory``.
        asked: the ratio to reach.
        least: whether it is the least ratio peer / graphprog, or the largest graphprog / peer.
        ratio: of the medians; None if nothing was measured.
        spread: smallest and largest ratio of a turn.
        contestants: median seconds or bytes of each.
        turns: how many times each was measured.
        hardware: column of the table.
        machine: the machine and its libraries in words.
        note: what else there is to say.
    """

    row: int
    work: str
    peer: str
    quantity: str
    asked: float
    least: bool
    ratio: float | None
    spread: tuple[float, float] | None
    contestants: dict[str, float]
    turns: int
    hardware: str
    machine: str
    note: str = ""

    @property
    def reached(self) -> bool:
        """Whether the ratio is what is asked, at the two digits that the table shows."""
        if self.ratio is None:
            return False
        shown = round(self.ratio, 2)
        return shown >= self.asked if self.least else shown <= self.asked


def record(
    row: Row, ask: Ask, measured: Mapping[str, Sequence[float]], setting: Setting, note: str = ""
) -> Record:
    """Make the record of a measurement.

    Args:
        row: the row.
        ask: what it asks of this measurement.
        measured: seconds or bytes of every turn, of graphprog and of one peer; empty if nothing
            could be measured, and ``note`` says why.
        setting: how it was measured.
        note: what else there is to say.
    """
    ratio, spread, turns = None, None, 0
    if measured:
        (peer,) = (name for name in measured if name != OURS)
        above, below = (peer, OURS) if ask.least else (OURS, peer)
        turns = len(measured[OURS])
        each = [one / other for one, other in zip(measured[above], measured[below], strict=True)]
        spread = (min(each), max(each))
        ratio = statistics.median(measured[above]) / statistics.median(measured[below])
    return Record(
        row.number,
        f"{row.work}: {ask.name}" if ask.name else row.work,
        ask.peer or row.peer,
        ask.quantity,
        ask.bound,
        ask.least,
        ratio,
        spread,
        {name: statistics.median(values) for name, values in measured.items()},
        turns,
        setting.hardware,
        setting.machine,
        note,
    )


def read(path: Path) -> list[Record]:
    """Read a file of records; none if there is no file."""
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    return [
        Record(**{**one, "spread": one["spread"] and tuple(one["spread"])})
        for one in found["records"]
    ]


def merged(before: Iterable[Record], new: Sequence[Record]) -> list[Record]:
    """Replace what was known of the same rows on the same hardware, and sort by row."""
    again = {(one.row, one.hardware) for one in new}
    kept = [one for one in before if (one.row, one.hardware) not in again]
    return sorted([*kept, *new], key=lambda one: (one.row, one.hardware))  # stable: as measured


def write(path: Path, records: Sequence[Record]) -> None:
    """Write a file of records."""
    document = {"records": [dataclasses.asdict(one) for one in records]}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
