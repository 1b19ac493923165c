"""Label mapping given by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from graphprog.alignments.base import home_of
from graphprog.alignments.label_mapping.selection import SelectedSources, Selection
from graphprog.errors import ProgramError
from graphprog.spec.checks import require_integer
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext


@spec("fixed-map")
@dataclass(frozen=True)
class FixedMap(Selection):
    """Fixed label mapping to source classes chosen by hand (Elsayed et al. 2019, arXiv:1806.11146).

    ``FixedMap(10)`` takes the first ten source classes, as that paper does;
    ``FixedMap(sources=(3, 7))`` names one for each target class, and
    ``FixedMap(sources=((3, 4), (7, 9)))`` several for each.

    Attributes:
        classes: number of target classes K_T; derived from ``sources`` if given.
        per_class: number of source classes m of each target; derived from ``sources`` if given.
        sources: a source class, or a tuple of m source classes, for every target class; empty for
            the first K_T * m in order. Two target classes may share some of their source classes
            but not all, since their logits would be equal.

    Example:
        >>> align = gp.FixedMap(sources=((3, 4), (5, 7)))  # each label is the mean of two
        >>> task = gp.compile(graph, gp.Program(align=align))
        >>> assert torch.allclose(task(images)[:, 0], graph(images)[:, 3:5].mean(1))
    """

    classes: int = 0
    sources: tuple[int, ...] | tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.sources, tuple | list):
            raise ProgramError(f"{self.kind}: sources must be a tuple, not {self.sources!r}")
        if self.sources:
            self._derive_sizes()
        elif self.classes == 0:
            raise ProgramError(
                f"{self.kind}: neither classes nor sources are given",
                ["FixedMap(10) takes the first ten source classes", "FixedMap(sources=(3, 7))"],
            )
        super().__post_init__()

    def _derive_sizes(self) -> None:
        rows = [_row(source) for source in self.sources]
        plain = tuple(row[0] for row in rows) if all(len(r) == 1 for r in rows) else tuple(rows)
        for field, derived in (("classes", len(rows)), ("per_class", len(rows[0]))):
            given = getattr(self, field)
            if given not in (type(self).__dataclass_fields__[field].default, derived):
                raise ProgramError(
                    f"{self.kind}: {field} is {given}, but sources have {derived}; leave it out"
                )
            object.__setattr__(self, field, derived)
        object.__setattr__(self, "sources", plain)
        seen: dict[frozenset[Any], int] = {}
        for target, row in enumerate(rows):
            self._check_row(target, row)
            twin = seen.setdefault(frozenset(row), target)
            if twin != target:
                raise ProgramError(
                    f"{self.kind}: target classes {twin} and {target} have the same sources {row}"
                )

    def _check_row(self, target: int, row: tuple[Any, ...]) -> None:
        if len(row) != self.per_class:
            raise ProgramError(
                f"{self.kind}: target class {target} has {len(row)} sources, but "
                f"target class 0 has {self.per_class}"
            )
        for source in row:
            require_integer(self.kind, f"source of target class {target}", source, 0)
        if len(set(row)) < len(row):
            raise ProgramError(f"{self.kind}: target class {target} repeats a source in {row}")

    def build(self, context: BuildContext) -> SelectedSources:
        """Values [B, K_S] to logits [B, K_T].

        Raises:
            ProgramError: as :class:`Selection`, or a source class at or above K_S.
        """
        available = self.available_sources(context.value)
        table = self.table()
        if int(table.max()) >= available:
            target = int(table.amax(1).argmax())
            raise ProgramError(
                f"{self.kind}: target class {target} reads source class {int(table.max())}, "
                f"but {self.at!r} has classes 0 to {available - 1}"
            )
        return SelectedSources(table.to(home_of(context.value)), self.aggregate)

    def table(self) -> torch.Tensor:
        """Return the source classes of every target class, int64 [K_T, m]."""
        if not self.sources:
            return self.first_sources()
        return torch.tensor([_row(source) for source in self.sources])


def _row(source: Any) -> tuple[Any, ...]:
    return tuple(source) if isinstance(source, tuple | list) else (source,)
