"""The errors that graphprog raises on purpose: what was wrong, where, and what to try."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class GraphprogError(Exception):
    """Base class of all errors of this package.

    Args:
        what: what was wrong, and where (interface, node, file, field).
        remedies: what to try, the most promising first; printed as a numbered list. One text is
            one remedy.
    """

    def __init__(self, what: str, remedies: Sequence[str] = ()) -> None:
        self.what = what
        self.remedies = (remedies,) if isinstance(remedies, str) else tuple(remedies)
        lines = [what]
        if len(self.remedies) == 1:
            lines.append(f"Try: {self.remedies[0]}")
        elif self.remedies:
            lines.append("Try:")
            lines += [f"  {number}. {remedy}" for number, remedy in enumerate(self.remedies, 1)]
        super().__init__("\n".join(lines))

    def reword(self, change: Callable[[str], str]) -> None:
        """Change the texts in place, such as the names of sizes."""
        GraphprogError.__init__(self, change(self.what), [change(text) for text in self.remedies])


class CaptureError(GraphprogError):
    """The model cannot be captured as a graph."""


class InterfaceError(GraphprogError):
    """An interface key is unknown, ambiguous, or unsuitable for what a program does there."""


class ProgramError(GraphprogError):
    """A program contradicts itself or the graph that it is compiled into."""


class PassError(GraphprogError):
    """A pass refused, or its result broke a promise; names the pass and keeps the cause."""


class DataError(GraphprogError):
    """Data have the wrong shape, dtype, range or labels, or are not finite."""


class FileError(GraphprogError):
    """A file is corrupt, hostile, of an unknown version, or for another source model."""


class TrainingError(GraphprogError):
    """Training cannot start or continue."""


class BackendError(GraphprogError):
    """A lowering failed, or its results differ from the original's by more than the tolerance."""
