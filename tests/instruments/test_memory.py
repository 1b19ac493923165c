"""The memory that instruments take is that of what was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.instruments import recording as recordings
from tests.support.peak_memory import PeakMemory

WIDTH, LENGTH, DEPTH = 64, 32, 12


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(x).relu()


def stack(*shape: int) -> gp.Graph:
    torch.manual_seed(0)
    blocks = [Block() for _ in range(DEPTH)]
    return gp.capture(nn.Sequential(*blocks, nn.Linear(WIDTH, 4)).eval(), (torch.rand(*shape),))


@pytest.fixture(scope="module")
def rows() -> gp.Graph:
    return stack(2, WIDTH)


@pytest.fixture(scope="module")
def texts() -> gp.Graph:
    return stack(2, LENGTH, WIDTH)


def test_a_recording_holds_what_was_asked_for(rows: gp.Graph) -> None:
    inputs = torch.rand(512, WIDTH)
    peaks = {}
    for at in ("hidden[0]", "hidden[11]", "hidden[*]"):
        gp.record(rows, inputs, at)
        with PeakMemory() as memory:
            gp.record(rows, inputs, at)
        peaks[at] = memory.peak / inputs.nbytes
    assert peaks["hidden[0]"] <= 3  # what it is computed from, and the sum
    assert peaks["hidden[11]"] <= 4  # also the value before the block
    assert DEPTH <= peaks["hidden[*]"] <= DEPTH + 3


def test_a_recording_of_a_data_set_takes_the_same_memory_at_any_length(
    rows: gp.Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a shard and of a batch; the rows of the data are made when they are read."""
    monkeypatch.setattr(recordings, "SHARD_BYTES", 2**16)

    class Made(torch.utils.data.Dataset[Any]):
        def __init__(self, count: int) -> None:
            self.count = count

        def __len__(self) -> int:
            return self.count

        def __getitem__(self, row: int) -> Tensor:
            return torch.full((WIDTH,), row / self.count)

    peaks = []
    for count in (512, 3072):
        with PeakMemory() as memory:
            found = gp.record(rows, Made(count), "hidden[*]", to=tmp_path / str(count))
        peaks.append(memory.peak)
        assert found.rows == count
    assert peaks[1] <= 1.05 * peaks[0]
    assert peaks[1] <= 6 * 2**16
    assert sum(value.tensor().nbytes for value in found.values()) > 20 * peaks[1]


def test_a_map_holds_a_batch_of_cells(texts: gp.Graph) -> None:
    """Of patching, whatever the number of interfaces: values of one row and of one batch."""
    one, other = torch.rand(2, 1, LENGTH, WIDTH)
    batch = 16
    for at in ("hidden[6]", "hidden[*]"):
        options: dict[str, Any] = {"at": at, "metric": (0, 1), "batch_size": batch}
        gp.patch(texts, one, other, **options)
        with PeakMemory() as memory:
            gp.patch(texts, one, other, **options)
        kept = 2 * DEPTH * one.nbytes  # clean and corrupt values of all interfaces
        assert memory.peak <= 5 * batch * one.nbytes + 2 * kept


def test_gradients_are_kept_from_the_first_interface_on(texts: gp.Graph) -> None:
    one, other = torch.rand(2, 1, LENGTH, WIDTH)
    peaks = {}
    for at in ("hidden[11]", "hidden[*]"):
        gp.attribute(texts, one, other, at=at, metric=(0, 1))
        with PeakMemory() as memory:
            gp.attribute(texts, one, other, at=at, metric=(0, 1))
        peaks[at] = memory.peak / one.nbytes
    assert peaks["hidden[11]"] <= 10 < 2 * DEPTH < peaks["hidden[*]"]
