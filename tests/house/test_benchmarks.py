"""The benchmarks: every row has a script, and results become a file, a table and a plot."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from benchmarks.table.page import BEGIN, END, page
from benchmarks.table.plot import plot
from benchmarks.table.records import OURS, Ask, Record, Row, Setting, merged, read, record, write
from benchmarks.table.registry import rows
from benchmarks.works.steps import agreement
from tests.support.environments import ROOT

ROW = Row(
    3, "step", "loop", (Ask("long", 1.5), Ask("", 0.5, least=False, quantity="memory")), gpu=True
)
CPU = Setting("cpu", True, 1.0, "CPU", "a processor")
GPU = Setting("cuda", True, 1.0, "GPU of a kind", "a GPU")
ASKED = {
    1: [("time", ">=", 1.7), ("memory", "<=", 0.6)],
    2: [("time", ">=", 2.9), ("time", ">=", 4.4)],
    3: [("time", ">=", 1.4)],
    4: [("time", ">=", 2.0)],
    5: [("time", ">=", 1.2)],
    6: [("time", ">=", 2.0), ("time", ">=", 1.3)],
    7: [("time", ">=", 15.0)] * 2,
    8: [("time", ">=", 2.1)] * 2,
    9: [("time", ">=", 8.0)] * 2,
    10: [("time", ">=", 1.0), ("memory", "<=", 2.0)],
    11: [("time", "<=", 1.02)] * 4,
    12: [("time", "<=", 1.15)] * 3,
    13: [("memory", "<=", 0.45)],
    14: [("time", "<=", 0.5)] * 2,
}
"""What every row asks for."""


def step(seconds: float, setting: Setting = CPU) -> Record:
    """Return a record of three turns, in which the loop took twice, thrice and four times that."""
    turns = {"loop": [2 * seconds, 3 * seconds, 4 * seconds], OURS: [seconds] * 3}
    return record(ROW, ROW.asks[0], turns, setting)


def test_every_row_has_a_script_that_asks_for_its_ratios() -> None:
    known = rows()
    found = {
        row.number: [(a.quantity, ">=" if a.least else "<=", a.bound) for a in row.asks]
        for row in known
    }
    assert found == ASKED
    assert {row.number for row in known if row.gpu} >= {1, 2, 3, 4, 5, 6, 9, 12}
    assert len(set(known.values())) == len(known)


def test_ratios_are_of_medians_in_the_direction_that_is_asked() -> None:
    one = step(2.0)
    assert (one.ratio, one.spread, one.turns, one.reached) == (3.0, (2.0, 4.0), 3, True)
    assert one.work == "step: long"
    assert one.contestants == {"loop": 6.0, OURS: 2.0}
    sizes = {"loop": [1000], OURS: [504]}
    less = record(ROW, ROW.asks[1], sizes, CPU)
    assert (less.ratio, less.reached) == (0.504, True)  # 0.50 at the digits shown
    assert not record(ROW, ROW.asks[1], {"loop": [1000], OURS: [506]}, CPU).reached


def test_contestants_that_do_other_work_are_refused() -> None:
    one = (torch.tensor([1.0, 2.0]),)
    assert "within 5e-05" in agreement({OURS: lambda: one, "loop": lambda: (one[0] + 1e-4,)})
    with pytest.raises(RuntimeError, match="not the same work"):
        agreement({OURS: lambda: one, "loop": lambda: (one[0] + 0.1,)})


def test_results_of_other_rows_and_devices_stay(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert read(path) == []
    slow, fast, on_gpu = step(2.0), step(1.0), step(0.5, GPU)
    other = dataclasses.replace(slow, row=1)
    write(path, merged([slow, on_gpu], [other]))
    assert read(path) == [other, slow, on_gpu]
    write(path, merged(read(path), [fast]))
    assert read(path) == [other, fast, on_gpu]


def test_the_table_stands_between_its_markers() -> None:
    missing = record(ROW, ROW.asks[1], {}, GPU, "not installed")
    text = page(f"before\n{BEGIN}\nold\n{END}\nafter\n", [step(2.0), step(0.01, GPU), missing])
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "| # | work | beside | asked | CPU | GPU of a kind |" in text
    assert (
        "| 3 | step: long | loop | ≥ 1.5 | **3.00** (6.00 s : 2.00 s) | **3.00** (30.0 ms" in text
    )
    assert "| 3 | step: peak memory | loop | ≤ 0.5 | – | not installed |" in text
    assert "GPU of a kind: a GPU." in text
    assert page(text, [step(2.0), step(0.01, GPU), missing]) == text
    with pytest.raises(ValueError, match="needs"):
        page(f"{END} {BEGIN}", [])


def test_the_page_has_the_markers_and_the_results_that_are_kept() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    kept = read(ROOT / "docs" / "benchmarks.json")
    assert page(text, kept) == text


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    records = [step(1.0), step(1.0, GPU), record(ROW, ROW.asks[1], {}, GPU, "not installed")]
    plot(records, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_folders_can_be_taken_in_at_a_glance() -> None:
    files = [path for path in (ROOT / "benchmarks").rglob("*.py") if path.name != "__init__.py"]
    assert max(Counter(path.parent for path in files).values()) <= 14
    for path in files:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


@pytest.mark.slow  # captures, and runs of every row's contestants
@pytest.mark.parametrize("number", sorted(ASKED))
def test_a_row_is_measured_at_a_tiny_size(number: int, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    options = ["--only", str(number), "--tiny", "--seconds", "0", "--json", str(path)]
    command = [sys.executable, "-m", "benchmarks", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = read(path)
    assert [(one.row, one.asked) for one in found] == [
        (number, bound) for _, _, bound in ASKED[number]
    ]
    assert all(one.ratio is not None or one.note for one in found)
