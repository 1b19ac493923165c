"""Kept values that several runs share: those of one source, on the same samples."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch.utils import _pytree as pytree

from graphprog.train.data.splits import Split
from graphprog.train.reuse.kept_split import KeptSplit

_SHARED: ContextVar[Sharing | None] = ContextVar("shared", default=None)


class Sharing:
    """What was kept by the runs so far.

    Attributes:
        data: the samples of the next run, by the name of the split.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folders = itertools.count()
        self._kept: dict[Hashable, KeptSplit] = {}
        self.data: Mapping[str, Any] = {}

    @classmethod
    def now(cls) -> Sharing | None:
        """Return what the runs of this block share; None outside of any."""
        return _SHARED.get()

    def new_folder(self) -> Path:
        """Make a folder for the files of one split."""
        made = self._folder / str(next(self._folders))
        made.mkdir()
        return made

    def kept(
        self, split: Split, name: str, key: Hashable, keep: Callable[[], KeptSplit | str]
    ) -> KeptSplit | str:
        """Return the values of a split that another run kept, or keep them.

        Args:
            split: the samples, as the run at hand reads them.
            name: of the split.
            key: what decides the values, besides the samples.
            keep: computes and keeps the values, or says why none are kept.
        """
        whole = (key, tuple(map(id, pytree.tree_leaves(self.data.get(name)))))
        found = self._kept.get(whole)
        if found is not None:
            again = found.of(split)
            if again.rows == found.rows and again.holds:
                return again
        made = keep()
        if isinstance(made, KeptSplit):
            self._kept[whole] = made
        return made


@contextmanager
def sharing() -> Iterator[Sharing]:
    """Let the runs inside the block share what they keep; it is dropped afterwards."""
    with TemporaryDirectory(prefix="graphprog-") as folder:
        found = Sharing(Path(folder))
        token = _SHARED.set(found)
        try:
            yield found
        finally:
            _SHARED.reset(token)
