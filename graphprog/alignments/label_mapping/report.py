"""Report of a refresh of a statistical alignment."""

from __future__ import annotations

from dataclasses import dataclass

from graphprog.utils.html import preformatted


@dataclass(frozen=True)
class MappingReport:
    """Report on the counts behind a label mapping.

    Attributes:
        sources: number of source classes K_S.
        classes: number of target classes K_T.
        total: sum of all counts: examples, or probability mass for soft counts.
        empty: target classes without any count.
        leftover: target classes mapped, in part or whole, without evidence: to source classes
            never predicted for them, or to all source classes equally. Includes ``empty``.
        unpredicted: number of source classes without any count.
        ties: number of picks of a matching that the tie rule decided; 0 without a matching.
        k: number of likeliest source classes counted for every example; None for predictions.
    """

    sources: int
    classes: int
    total: float
    empty: tuple[int, ...] = ()
    leftover: tuple[int, ...] = ()
    unpredicted: int = 0
    ties: int = 0
    k: int | None = None

    @property
    def warning(self) -> str:
        """Warning about classes without evidence, or an empty string."""
        sentences = []
        if self.empty:
            sentences.append(
                f"no training example was counted for target {_classes(self.empty)}: "
                "check the labels of the training split"
            )
        others = tuple(target for target in self.leftover if target not in self.empty)
        if others:
            sentences.append(
                f"target {_classes(others)} got source classes that were never predicted "
                "for them: use BayesianMap, which needs no such assignment"
            )
        return "; ".join(sentences)

    def _repr_html_(self) -> str:
        """Return the text, for notebooks."""
        return preformatted(str(self))

    def __str__(self) -> str:
        counted = f"{self.total:g} predictions"
        if self.k is not None:
            counted = f"the {self.k} likeliest source classes of every example"
        line = (
            f"mapping of {self.sources} source to {self.classes} target classes from {counted}: "
            f"{self.sources - self.unpredicted} source classes predicted, {self.ties} ties"
        )
        return f"{line}\nwarning: {self.warning}" if self.warning else line


def _classes(indices: tuple[int, ...]) -> str:
    shown = ", ".join(str(index) for index in indices[:10])
    more = f" and {len(indices) - 10} more" if len(indices) > 10 else ""
    return f"{'class' if len(indices) == 1 else 'classes'} {shown}{more}"
