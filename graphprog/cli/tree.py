"""Interfaces as a tree by module, with repeated modules folded."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Hashable, Iterator, Sequence

import graphprog as gp

_INDEX = re.compile(r"\[(\d+)\]")


@dataclasses.dataclass
class Branch:
    """A module, or the model: its interfaces by their ends, and the modules in it by name."""

    places: dict[str, gp.Interface] = dataclasses.field(default_factory=dict)
    parts: dict[str, Branch] = dataclasses.field(default_factory=dict)

    def shape(self) -> Hashable:
        """Return what repeated modules have in common: ends, types, and aliases but for numbers."""
        own = [
            (end, place.type_text, tuple(_INDEX.sub("[]", alias) for alias in numbered(place)))
            for end, place in self.places.items()
        ]
        return tuple(own), tuple((name, part.shape()) for name, part in self.parts.items())


def numbered(place: gp.Interface) -> list[str]:
    """Return the aliases with a number, such as ``hidden[3]``."""
    return [alias for alias in place.aliases if _INDEX.search(alias)]


def interface_tree(graph: gp.Graph) -> str:
    """Return the interfaces of a graph as a tree; ``blocks.0–11 ×12`` are equal modules."""
    root = Branch()
    for key, place in graph.interfaces().items():
        module, _, end = key.rpartition(":")
        here = root
        steps = [key] if module in ("input", "output") else module.split(".")
        for step in steps:
            here = here.parts.setdefault(step, Branch())
        here.places["" if len(steps) == 1 and steps[0] == key else end] = place
    return "\n".join([graph.name, *_lines(root)])


def _lines(branch: Branch) -> Iterator[str]:
    """Yield the lines below a module."""
    runs = list(_runs(branch))
    for number, (label, run) in enumerate(runs):
        last = number == len(runs) - 1
        yield f"{'└─' if last else '├─'} {label}{_ends(run)}"
        for line in _lines(run[0]):
            yield f"{'   ' if last else '│  '}{line}"


def _runs(branch: Branch) -> Iterator[tuple[str, list[Branch]]]:
    """Yield the modules in a module: equal numbered ones together, chains of one as one."""
    items = list(branch.parts.items())
    while items:
        name, first = items.pop(0)
        run, names = [first], [name]
        while items and name.isdigit() and items[0][0].isdigit():
            if items[0][1].shape() != first.shape():
                break
            names.append(items[0][0])
            run.append(items.pop(0)[1])
        if len(run) > 1:
            yield f"{names[0]}–{names[-1]} ×{len(run)}", run
            continue
        inner = [*_runs(first)] if not first.places and first.parts else []
        if len(inner) == 1:
            label, run = inner[0]
            yield f"{name}.{label}", run
        else:
            yield name, run


def _ends(run: Sequence[Branch]) -> str:
    """Return the ends of a module by type, with their aliases."""
    by_type: dict[str, list[str]] = {}
    for end, place in run[0].places.items():
        same = [other.places[end] for other in run]
        aliases = [*map(_ranged, zip(*map(numbered, same), strict=True))]
        aliases += [one for each in same for one in each.aliases if not _INDEX.search(one)]
        shown = f"{end} ({', '.join(aliases)})" if aliases else end
        by_type.setdefault(place.type_text, []).append(shown.strip())
    texts = [f"{', '.join(filter(None, ends))} {kind}".strip() for kind, ends in by_type.items()]
    return f"  {'; '.join(texts)}" if texts else ""


def _ranged(aliases: Sequence[str]) -> str:
    """Return ``hidden[0–11]`` for the aliases of equal modules."""
    first, last = aliases[0], aliases[-1]
    for one, other in zip(_INDEX.finditer(first), _INDEX.finditer(last), strict=True):
        if one[1] != other[1]:
            return f"{first[: one.start()]}[{one[1]}–{other[1]}]{first[one.end() :]}"
    return first
