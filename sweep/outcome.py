"""What came of a check, and of a family."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

STATUSES = ("passed", "refused", "failed", "not applicable")


class RefusedError(Exception):
    """graphprog refused on purpose, with a reason."""


class NotApplicableError(Exception):
    """The graph has no such interface, or there is nothing to compare with."""


class WrongError(Exception):
    """A number, a gradient or a shape is not what it should be."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one check; ``reason`` says why, or with what remark it passed."""

    check: str
    status: str
    reason: str = ""
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Record:
    """What came of one family.

    Attributes:
        name: of the family.
        kind: what its models do.
        what: the class that was built; empty where none could be.
        parameters: how many weights it has.
        outcomes: one for each check that was made, in order.
    """

    name: str
    kind: str
    what: str
    parameters: int
    outcomes: tuple[Outcome, ...]

    def get(self, check: str) -> Outcome | None:
        """The outcome of a check."""
        return next((found for found in self.outcomes if found.check == check), None)

    @property
    def verdict(self) -> str:
        """The worst of its outcomes: ``not built``, ``not captured``, or a status."""
        statuses = {outcome.check: outcome.status for outcome in self.outcomes}
        if statuses.get("build") != "passed":
            return "not built"
        if statuses.get("capture") != "passed":
            return "not captured"
        return next((word for word in ("failed", "refused") if word in statuses.values()), "passed")

    def over(self, earlier: Record | None) -> Record:
        """With what an earlier record has of checks that were not made again."""
        if earlier is None or self.verdict in ("not built", "not captured"):
            return self
        own = {outcome.check for outcome in self.outcomes}
        kept = [outcome for outcome in earlier.outcomes if outcome.check not in own]
        return dataclasses.replace(self, outcomes=(*self.outcomes, *kept))

    def line(self) -> str:
        """As one line of JSON."""
        return json.dumps(dataclasses.asdict(self))


def record_of(document: dict[str, Any]) -> Record:
    """Inverse of :meth:`Record.line`, of its parsed JSON."""
    outcomes = tuple(Outcome(**item) for item in document.pop("outcomes"))
    return Record(**document, outcomes=outcomes)


def read(path: Path) -> dict[str, Record]:
    """All records of a file by name; a later line counts, and one cut short by a crash does not."""
    found: dict[str, Record] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = record_of(json.loads(line))
            except json.JSONDecodeError:
                continue
            found[record.name] = record
    return found


def append(path: Path, records: Iterable[Record]) -> None:
    """Add records to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for record in records:
            file.write(record.line() + "\n")
