"""Every error graphprog raises on purpose. Each says what was wrong, where, and what to try."""

from __future__ import annotations

from collections.abc import Sequence


class GraphprogError(Exception):
    """Base of all errors of this package.

    Args:
        what: what was wrong, naming the place (interface, node, file, field).
        remedies: what to try, most promising first; printed as a numbered list.
    """

    def __init__(self, what: str, remedies: Sequence[str] = ()) -> None:
        self.what = what
        self.remedies = tuple(remedies)
        lines = [what]
        if len(self.remedies) == 1:
            lines.append(f"Try: {self.remedies[0]}")
        elif self.remedies:
            lines.append("Try:")
            lines += [f"  {number}. {remedy}" for number, remedy in enumerate(self.remedies, 1)]
        super().__init__("\n".join(lines))


class CaptureError(GraphprogError):
    """The model could not be turned into a graph."""


class InterfaceError(GraphprogError):
    """An interface key is unknown, ambiguous, or unfit for what a program wants to do there."""


class ProgramError(GraphprogError):
    """A program contradicts itself, or the graph it is compiled into."""


class PassError(GraphprogError):
    """A pass refused, or broke a promise; names the pass and keeps its cause."""


class DataError(GraphprogError):
    """Data a program was given has the wrong shape, dtype, range, labels, or is not finite."""


class FileError(GraphprogError):
    """A file is corrupt, hostile, of a future version, or belongs to another source model."""


class TrainingError(GraphprogError):
    """Training cannot start or go on."""


class BackendError(GraphprogError):
    """A lowering failed, or its result differs from the original by more than the tolerance."""
