"""One plot of all rows: what is asked, and what was measured."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.table.records import Record

ASKED, COLORS = "#9aa0a6", ("#1f6fb4", "#d9680f", "#2d8a4e", "#8a4ea8")


def plot(records: Sequence[Record], path: Path) -> None:
    """Draw ratios that are to be large, and ratios that are to be small, and write the file.

    Args:
        records: all that was measured.
        path: of the picture.
    """
    measured = [one for one in records if one.ratio is not None]
    devices = list(dict.fromkeys(one.hardware for one in measured))
    kinds = [[one for one in measured if one.least is least] for least in (True, False)]
    titles = (
        "times as fast as the peer (farther right is better)",
        "share of the peer (farther left is better)",
    )
    parts = [(title, found) for title, found in zip(titles, kinds, strict=True) if found]
    heights = [len(_places(found)) + 1.5 for _, found in parts]
    figure = Figure(figsize=(10, 0.42 * sum(heights) + 0.6), layout="constrained")
    axes = figure.subplots(len(parts), squeeze=False, gridspec_kw={"height_ratios": heights})
    for (title, found), (one,) in zip(parts, axes, strict=True):
        _panel(one, title, found, devices)
    figure.legend(
        handles=[Line2D([], [], color=ASKED, lw=3, label="asked"), *map(_dot, devices, COLORS)],
        loc="outside lower center",
        ncols=len(devices) + 1,
        frameon=False,
        title="filled: reached; lines: smallest and largest of the turns",
        title_fontsize=8,
    )
    figure.savefig(path, dpi=150)


def _dot(label: str, color: str) -> Line2D:
    return Line2D([], [], color=color, marker="o", lw=1.2, label=label)


def _panel(axes: Any, title: str, records: Sequence[Record], devices: Sequence[str]) -> None:
    places = _places(records)
    for (number, name), place in places.items():
        asked = next(one.asked for one in records if (one.row, _name(one)) == (number, name))
        ends = [place - 0.35, place + 0.35]
        axes.plot([asked, asked], ends, color=ASKED, lw=3, zorder=1, solid_capstyle="butt")
    for number, device in enumerate(devices):
        color = COLORS[number % len(COLORS)]
        for one in (each for each in records if each.hardware == device):
            place = places[one.row, _name(one)] + 0.22 * (number - (len(devices) - 1) / 2)
            axes.plot(one.spread, [place, place], color=color, lw=1.2, zorder=2)
            face = color if one.reached else "white"
            axes.plot(one.ratio, place, "o", color=color, mfc=face, ms=6, zorder=3)
    axes.axvline(1, color="#cccccc", lw=1, zorder=0)
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_yticks(list(places.values()), [f"{number}  {name}" for number, name in places])
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.grid(axis="x", color="#eeeeee", zorder=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if all(one.least for one in records):
        axes.set_xscale("log")
        ticks = [one for one in (0.25, 0.5, 1, 2, 5, 10, 20, 50) if _inside(one, records)]
        axes.set_xticks(ticks, [f"{one:g}" for one in ticks])
        axes.minorticks_off()


def _inside(tick: float, records: Sequence[Record]) -> bool:
    values = [1.0, *(one.asked for one in records), *(one.ratio or 1.0 for one in records)]
    return 0.7 * min(values) <= tick <= 1.4 * max(values)


def _name(record: Record) -> str:
    kind = ", memory" if record.quantity == "memory" else ""
    return "\n".join(textwrap.wrap(record.work + kind, 72))


def _places(records: Sequence[Record]) -> dict[tuple[int, str], float]:
    names = dict.fromkeys((one.row, _name(one)) for one in records)
    return {name: float(place) for place, name in enumerate(names)}
