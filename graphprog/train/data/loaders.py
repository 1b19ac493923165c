"""Splits that read a user's data loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)
from torch.utils.data.distributed import DistributedSampler

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import DataError, GraphprogError
from graphprog.train.data.batches import (
    Batch,
    Parts,
    Share,
    check_parts,
    rows_of,
    select,
    unpack,
)
from graphprog.train.data.convert import unreadable
from graphprog.train.data.splits import Split
from graphprog.train.loop.randomness import stream_state
from graphprog.train.objective import Objective


class OneBatch(Dataset[Any]):
    """A data set of one item: samples of another as one batch, and whether they are random."""

    def __init__(
        self, dataset: Any, numbers: list[int], collate: Callable[[list[Any]], Any]
    ) -> None:
        self.dataset = dataset
        self.numbers = numbers
        self.collate = collate

    def __len__(self) -> int:
        """One."""
        return 1

    def __getitem__(self, _: int) -> tuple[Any, bool]:
        """Read the samples."""
        before = stream_state()
        several = getattr(self.dataset, "__getitems__", None)
        items = (
            several(self.numbers)
            if callable(several)
            else [self.dataset[number] for number in self.numbers]
        )
        return self.collate(items), before != stream_state()


def as_it_is(item: Any) -> Any:
    """Return an item of a data set unchanged."""
    return item


class LoaderSplit(Split):
    """A split that reads a user's loader unchanged."""

    def __init__(
        self, task: ReprogrammedModel, objective: Objective, name: str, loader: DataLoader[Any]
    ) -> None:
        self.task = task
        self.objective = objective
        self.name = name
        self.loader = loader
        self._seeds = torch.Generator().manual_seed(0)
        self.streams = isinstance(loader.dataset, IterableDataset)
        counted = not self.streams and loader.batch_sampler is not None
        self.rows = len(loader.dataset) if counted else None  # type: ignore[arg-type]
        if self.steps(1) == 0:
            raise DataError(f"{name} data: the loader yields no batches")

    def steps(self, batch_size: int) -> int | None:
        """Return the length of the loader, for any requested batch size."""
        return None if self.streams else len(self.loader)

    def batches(
        self, batch_size: int, share: Share, shuffle: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """Yield the loader's batches; the loader determines batch size and shuffling."""
        sampler = self.loader.sampler
        if share.count > 1 and isinstance(sampler, DistributedSampler):
            raise DataError(
                f"{self.name} data: the loader already gives every process its own examples",
                ["pass the same loader in every process, without DistributedSampler; fit shares"],
            )
        for number, item in enumerate(self._items()):
            parts = unpack(item, self.task, f"{self.name} batch {number}")
            check_parts(self.objective, parts, self._namer(number))
            yield _shared(parts, share)

    @property
    def numbered(self) -> bool:
        """Whether the loader takes each sample by number, with a sampler that PyTorch defines."""
        loader, batched = self.loader, self.loader.batch_sampler
        again = loader.num_workers > 0 and loader.persistent_workers  # draws no seed then
        return (
            self.rows is not None
            and not again
            and type(batched) is BatchSampler
            and type(batched.sampler) in (RandomSampler, SequentialSampler)
            and not getattr(batched.sampler, "replacement", False)
            and len(batched.sampler) == self.rows  # type: ignore[arg-type]
        )

    def numbers(
        self, batch_size: int, shuffle: torch.Generator | None = None
    ) -> Iterator[torch.Tensor]:
        """Yield the numbers of the samples of each batch, drawing what the loader would draw."""
        loader = self.loader
        count = len(loader.dataset)  # type: ignore[arg-type]
        order: DataLoader[int] = DataLoader(
            range(count),  # type: ignore[arg-type]
            batch_sampler=loader.batch_sampler,
            collate_fn=torch.tensor,
            generator=loader.generator,
        )
        yield from order

    def sample(self, numbers: torch.Tensor) -> tuple[Parts, bool]:
        """Read samples as one batch, in a worker if the loader has any.

        Returns:
            The samples, and whether random numbers were drawn while they were read.
        """
        loader = self.loader
        assert loader.collate_fn is not None
        reading: DataLoader[Any] = DataLoader(
            OneBatch(loader.dataset, numbers.tolist(), loader.collate_fn),
            batch_size=None,
            collate_fn=as_it_is,
            num_workers=min(1, loader.num_workers),
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=self._seeds,
        )
        try:
            ((item, drew),) = reading
        except GraphprogError:
            raise
        except Exception as error:
            raise unreadable(f"{self.name} samples", "the data set", error) from error
        return unpack(item, self.task, f"{self.name} data"), drew

    def _items(self) -> Iterator[Any]:
        """Yield what the loader yields; its errors say which batch failed."""
        number = 0
        try:
            for item in self.loader:
                yield item
                number += 1
        except GraphprogError:
            raise
        except Exception as error:
            raise unreadable(f"{self.name} batch {number}", "the loader", error) from error

    def _namer(self, number: int) -> Callable[[int | None], str]:
        place = f"{self.name} batch {number}"
        return lambda row: place if row is None else f"{place}, row {row}"

    def in_order(self) -> Split:
        """Return the loader's data set unshuffled; a stream is read in its own order."""
        loader = self.loader
        if self.streams:
            return self
        size = loader.batch_size
        if size is None and self.rows is not None:  # batches of a custom sampler
            size = -(-self.rows // len(loader))
        ordered = DataLoader(
            loader.dataset,
            batch_size=size,
            collate_fn=loader.collate_fn,
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
            worker_init_fn=loader.worker_init_fn,
            generator=torch.Generator().manual_seed(0),
        )
        return LoaderSplit(self.task, self.objective, self.name, ordered)

    def begin(self, epoch: int) -> None:
        """Call ``set_epoch`` of samplers that have it."""
        for part in (self.loader.sampler, self.loader.batch_sampler):
            set_epoch = getattr(part, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)

    def generators(self) -> list[torch.Generator]:
        """Return the generators of the loader and its samplers."""
        inner = getattr(self.loader.batch_sampler, "sampler", None)
        owners = (self.loader, self.loader.sampler, self.loader.batch_sampler, inner)
        found = (getattr(owner, "generator", None) for owner in owners)
        kept = {id(item): item for item in found if isinstance(item, torch.Generator)}
        return list(kept.values())


def _shared(parts: Parts, share: Share) -> Batch:
    inputs, labels = parts
    total = rows_of(labels)
    if share.count == 1:
        return Batch(inputs, labels, total, total)
    every = torch.arange(total)
    own = share.of(every)
    inputs, labels = select(parts, own if len(own) else every[:1])
    return Batch(inputs, labels, len(own), total)
