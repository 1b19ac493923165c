"""The pass over a split that computes what is kept of each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils import _pytree as pytree

from graphprog.train.data.batches import Batch, leaves_of
from graphprog.train.data.splits import Split
from graphprog.train.loop.engine import Engine
from graphprog.train.reuse.kept_split import KeptSplit, sampled
from graphprog.train.reuse.store import InMemory, OnDisk, bytes_of_rows, disk_budget, memory_budget


class _KeptNothing(Exception):  # noqa: N818 (a reason, not an error)
    """Why nothing is kept."""


@dataclass(frozen=True)
class FirstPass:
    """How to keep the values of a split.

    Attributes:
        engine: runs the first stage of the task.
        reuse: ``memory``, ``disk``, or ``auto``: in memory within a budget, else on the disk.
        batch_size: samples per run.
        folder: where files go; they are not needed after the run.
        show: is given the number of batches that are done, and of all.
    """

    engine: Engine
    reuse: str
    batch_size: int
    folder: Path
    show: Callable[[int, int | None], None]

    def keep(self, split: Split, name: str) -> KeptSplit | str:
        """Compute and keep the values of a split, or say why none are kept.

        Args:
            split: the samples.
            name: of the split.
        """
        try:
            return self._kept(split, name)
        except _KeptNothing as reason:
            return f"nothing is kept of the {name} data: {reason}"
        except OSError as error:
            return f"nothing is kept of the {name} data: {error.strerror or error}"

    def _kept(self, split: Split, name: str) -> KeptSplit:
        if self.engine.share.count > 1:
            raise _KeptNothing("several processes share the batches")
        if not split.numbered or split.rows is None:
            raise _KeptNothing("only its loader knows the order of the samples")
        probe = sampled(split)
        if probe is None:
            raise _KeptNothing("its samples are random")
        ordered, rows = split.in_order(), _Rows(self, split.rows, name)
        steps = ordered.steps(self.batch_size)
        for number, given in enumerate(ordered.batches(self.batch_size, self.engine.share)):
            batch = given.to(self.engine.device)
            values = self.engine.first(batch)
            if number == 0 and not self._is_whole(batch, values):
                raise _KeptNothing("from kept values, the task returns something else")
            rows.add([*values, *leaves_of(batch.labels)])
            self.show(number + 1, steps)
        tensors, labels = rows.tensors(), pytree.tree_structure(batch.labels)
        found = pytree.tree_unflatten(tensors[len(values) :], labels)
        return KeptSplit(split, tuple(tensors[: len(values)]), found, probe)

    @torch.no_grad()
    def _is_whole(self, batch: Batch, values: tuple[torch.Tensor, ...]) -> bool:
        """Whether both stages give what the task gives on a batch; it checks its inputs, too."""
        outputs, _ = self.engine.forward(batch, read=False)
        rest, _ = self.engine.forward(replace(batch, inputs=values, kept=True), read=False)
        leaves = zip(pytree.tree_leaves(outputs), pytree.tree_leaves(rest), strict=True)
        return all(torch.allclose(one, two, 1e-4, 1e-5, equal_nan=True) for one, two in leaves)

    def in_memory(self, rows: int, values: Sequence[torch.Tensor]) -> bool:
        """Whether to keep as many rows as a split has in memory; ``values`` are a few of them."""
        needed, budget = bytes_of_rows(rows, values), memory_budget()
        if self.reuse == "memory" and needed > budget:
            raise _KeptNothing(
                f"it would be {_text(needed)}, half of the memory is {_text(budget)}"
            )
        if self.reuse != "disk" and needed <= budget:
            return True
        if needed > disk_budget(self.folder):
            raise _KeptNothing(f"{_text(needed)} fit neither in half of the memory nor of the disk")
        return False


def _text(count: int) -> str:
    return f"{count / 1e9:,.3g} GB"


class _Rows:
    """The rows of all tensors that are kept, as they are computed."""

    def __init__(self, settings: FirstPass, rows: int, name: str) -> None:
        self._settings = settings
        self._rows = rows
        self._name = name
        self._done = 0
        self._stores: list[InMemory | OnDisk] = []
        self._kinds: list[tuple[torch.Size, torch.dtype]] = []

    def add(self, values: Sequence[torch.Tensor]) -> None:
        kinds = [(one.shape[1:], one.dtype) for one in values]
        if not self._stores:
            self._kinds, self._stores = kinds, self._empty(values)
        if kinds != self._kinds:
            raise _KeptNothing("its samples differ in shape")
        self._done += len(values[0])
        if self._done > self._rows:
            raise _KeptNothing("it has more samples than its length says")
        for store, one in zip(self._stores, values, strict=True):
            store.add(one)

    def _empty(self, values: Sequence[torch.Tensor]) -> list[InMemory | OnDisk]:
        if self._settings.in_memory(self._rows, values):
            return [InMemory(self._rows, like) for like in values]
        paths = [self._settings.folder / f"{self._name}-{at}" for at in range(len(values))]
        return [OnDisk(path, self._rows, like) for path, like in zip(paths, values, strict=True)]

    def tensors(self) -> list[torch.Tensor]:
        if self._done != self._rows:
            raise _KeptNothing("it has fewer samples than its length says")
        return [store.tensor() for store in self._stores]
