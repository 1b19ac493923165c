"""Interfaces as text: aliases first, then every interface in data-flow order."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from graphprog.ir.reading.folding import Row, Run, folded, range_label, ranged, starred
from graphprog.utils.columns import columns

_INDEX = re.compile(r"\[\d+\]")
_LAST_INDEX = re.compile(r"\[\d+\]$")


@dataclasses.dataclass(frozen=True)
class Place:
    """The printed fields of an interface: see :class:`graphprog.ir.interface.Interface`."""

    key: str
    kind: str
    type_text: str
    uses: int
    node: str
    module: str
    aliases: tuple[str, ...]


def interface_text(
    places: Sequence[Place], choices: Mapping[str, tuple[str, ...]], verbose: bool
) -> str:
    """Return a table of aliases and one of interfaces.

    Args:
        places: the interfaces, in order.
        choices: qualified aliases by ambiguous alias.
        verbose: print one row for each; else repeated blocks are folded, and modules that return
            their input are left out.
    """
    shown = list(places) if verbose else _with_operation(places)
    body = columns(_rows(shown, verbose), ("interface", "kind", "value", "uses"))
    lines = [*_aliases(places, verbose), *body, *_ambiguous(choices)]
    if len(body) - 2 < len(places):
        idle = len(places) - len(shown)
        modules = f", {idle} of them at modules without an operation" if idle else ""
        block = next((line.split("–")[0] for line in body if "×" in line), "")
        part = f'graph.interfaces("{block}.*") shows one block, ' if block else ""
        lines += ["", f"{len(places)} interfaces{modules}", f"{part}verbose=True shows all"]
    return "\n".join(lines)


def _with_operation(places: Sequence[Place]) -> list[Place]:
    """Drop the interfaces of modules that return their input."""
    nodes: defaultdict[str, dict[str, set[str]]] = defaultdict(lambda: {"in": set(), "out": set()})
    for place in places:
        path, _, end = place.key.rpartition(":")
        side = re.match("in|out", end)
        if side and place.module:
            nodes[path][side.group()].add(place.node)
    idle = {
        path
        for path, sides in nodes.items()
        if len(sides["in"]) == 1 and sides["in"] == sides["out"]
    }
    return [
        place
        for place in places
        if place.aliases or place.key.rpartition(":")[0] not in idle or not place.module
    ]


def _aliases(places: Sequence[Place], verbose: bool) -> list[str]:
    named = [(alias, place) for place in places for alias in place.aliases]
    if not named:
        return []
    stems = list(dict.fromkeys(_INDEX.sub("[*]", alias) for alias, _ in named))
    named.sort(key=lambda item: stems.index(_INDEX.sub("[*]", item[0])))
    cells = []
    for _, same in itertools.groupby(named, lambda item: _LAST_INDEX.sub("", item[0])):
        cells += _alias_cells(list(same), verbose)
    return [*columns(cells, ("alias", "interface", "value")), ""]


def _alias_cells(named: Sequence[tuple[str, Place]], verbose: bool) -> list[tuple[str, str, str]]:
    """Return the rows of aliases that differ in their last index alone."""
    rows = [Row(f"{alias} {place.key}", place.type_text) for alias, place in named]
    cells = []
    for entry in _entries(rows, verbose, least=1):
        run = entry if isinstance(entry, Run) else Run(entry, 1, 1)
        for row in range(run.start, run.start + run.period):
            (alias, place), (last_alias, last) = named[row], named[run.last(row)]
            key = ranged(place.key, last.key)
            cells.append((_python_range(alias, last_alias), key, place.type_text))
    return cells


def _python_range(first: str, last: str) -> str:
    """``hidden[0:12]`` for ``hidden[0]`` to ``hidden[11]``, which names these places."""
    if first == last:
        return first
    stem, _, low = first.removesuffix("]").rpartition("[")
    return f"{stem}[{low}:{int(last.removesuffix(']').rpartition('[')[2]) + 1}]"


def _entries(rows: Sequence[Row], verbose: bool, least: int) -> list[int | Run]:
    return list(range(len(rows))) if verbose else list(folded(rows, least))


def _rows(places: Sequence[Place], verbose: bool) -> list[tuple[str, str, str, str]]:
    rows = [Row(place.key, (place.type_text, place.module)) for place in places]
    found: list[tuple[str, str, str, str]] = []
    for entry in _entries(rows, verbose, least=2):
        run = entry if isinstance(entry, Run) else Run(entry, 1, 1)
        several = run.period > 1
        if several:
            label = range_label(rows[run.start].name, rows[run.last(run.start)].name)
            found.append((f"{label} ×{run.count}", "", "", ""))
        for row in range(run.start, run.start + run.period):
            ends = rows[row].name, rows[run.last(row)].name
            key = f"  {starred(*ends)}" if several else ranged(*ends)
            found.append(_cells(key, places[row : run.stop : run.period]))
    return found


def _cells(key: str, places: Sequence[Place]) -> tuple[str, str, str, str]:
    uses = sorted({place.uses for place in places})
    text = str(uses[0]) if len(uses) == 1 else f"{uses[0]}–{uses[-1]}"
    return key, places[-1].kind, places[0].type_text, text


def _ambiguous(choices: Mapping[str, tuple[str, ...]]) -> list[str]:
    options: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for alias, qualified in choices.items():
        starry = _INDEX.sub("[*]", alias)
        options[starry].update(dict.fromkeys(_INDEX.sub("[*]", name) for name in qualified))
    lines = [f"ambiguous: {alias} may be {', '.join(names)}" for alias, names in options.items()]
    return ["", *lines] if lines else []
