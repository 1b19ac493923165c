"""The table in the documentation, between two markers."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.table.records import Record
from benchmarks.table.script import amount

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"

PICTURE = "![Ratios that are asked for, and those that were measured](benchmarks.png)"
NOTHING = "No row has been measured by these scripts."


def page(text: str, records: Sequence[Record]) -> str:
    """Write the table into a page.

    Args:
        text: the page, which has both markers.
        records: all that was measured.

    Raises:
        ValueError: a marker is missing, or there twice, or they are in the wrong order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"the page needs {BEGIN} once, and {END} once after it")
    shown = f"{table(records)}\n\n{PICTURE}" if records else NOTHING
    return f"{before}{BEGIN}\n\n{shown}\n\n{END}{after}"


def table(records: Sequence[Record]) -> str:
    """Return a table with a column for each device, and what the devices are below it."""
    devices = list(dict.fromkeys(one.hardware for one in records))
    devices.sort(key=lambda name: name != "CPU")
    rows: dict[tuple[int, str, str], dict[str, Record]] = {}
    for one in records:
        rows.setdefault((one.row, one.work, one.quantity), {})[one.hardware] = one
    lines = [
        f"| # | work | beside | asked | {' | '.join(devices)} |",
        f"|---|---|---|---|{'---|' * len(devices)}",
    ]
    for (number, work, quantity), found in rows.items():
        one = next(iter(found.values()))
        what = work if quantity == "time" else f"{work}: peak memory"
        asked = f"{'≥' if one.least else '≤'} {one.asked:g}"
        cells = " | ".join(cell(found.get(name)) for name in devices)
        lines.append(f"| {number} | {what} | {one.peer} | {asked} | {cells} |")
    return "\n".join([*lines, "", *machines(records, devices)])


def cell(record: Record | None) -> str:
    """Return a ratio, bold if it is what is asked, and what each took."""
    if record is None:
        return "–"
    if record.ratio is None:
        return record.note
    ratio = f"**{record.ratio:.2f}**" if record.reached else f"{record.ratio:.2f}"
    values = [amount(value, record.quantity) for value in record.contestants.values()]
    return f"{ratio} ({' : '.join(values)})"


def machines(records: Sequence[Record], devices: Sequence[str]) -> list[str]:
    """Return a line for each device: the machines on which its rows were measured."""
    found: dict[str, dict[str, None]] = {name: {} for name in devices}
    for one in records:
        found[one.hardware][one.machine] = None
    return [f"{name}: {'; '.join(told)}." for name, told in found.items()]
