"""Checks of a stored mapping: it has to be one that its alignment makes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from graphprog.alignments.base import Alignment
from graphprog.alignments.label_mapping.bayesian import BayesianMap
from graphprog.alignments.label_mapping.fixed_map import FixedMap
from graphprog.alignments.label_mapping.selection import SelectedSources, Selection
from graphprog.errors import FileError

_TABLE = "program.align.sources"
_WEIGHTS = "program.align.weights"
_TOLERANCE = 1e-3
_AGAIN = ["get the file again", "save the program again: gp.save(task, path)"]


def check_mapping(
    align: Alignment, state: Mapping[str, torch.Tensor], module: nn.Module | None = None
) -> None:
    """Check the mapping that a file has for an alignment.

    Args:
        align: the alignment.
        state: tensors of the program by name; those of other parts are not read.
        module: the alignment's module as it was built, if there is one: then the number of source
            classes is known.

    Raises:
        FileError: a source class does not exist, serves two target classes, or is not the one
            that the alignment names; or weights are negative or do not sum to 1.
    """
    table, weights = state.get(_TABLE), state.get(_WEIGHTS)
    if isinstance(align, Selection) and table is not None:
        _check_table(align, table, module)
    if isinstance(align, BayesianMap) and weights is not None:
        _check_weights(align, weights)


def _check_table(align: Selection, table: torch.Tensor, module: nn.Module | None) -> None:
    available = getattr(module, "source_classes", None)
    found = table.to(torch.int64)
    if tuple(found.shape) != (align.classes, align.per_class):
        raise _wrong(align, f"has the shape {list(found.shape)}")
    low, high = int(found.min()), int(found.max())
    if low < 0 or (available is not None and high >= available):
        wrong = low if low < 0 else high
        raise _wrong(align, f"reads source class {wrong}, which does not exist")
    wanted = _table_of(align, module)
    if wanted is not None and not torch.equal(found, wanted):
        place = (found != wanted).nonzero()[0].tolist()
        raise _wrong(
            align,
            f"reads source class {int(found[*place])} for target class {place[0]}, and the program "
            f"{int(wanted[*place])}",
        )
    if not isinstance(align, FixedMap) and found.unique().numel() != found.numel():
        raise _wrong(align, "reads a source class for two target classes")


def _table_of(align: Selection, module: nn.Module | None) -> torch.Tensor | None:
    """Return the table that a program determines by itself, without data."""
    if isinstance(module, SelectedSources):
        return module.sources.cpu()
    return align.table() if isinstance(align, FixedMap) else None


def _check_weights(align: BayesianMap, weights: torch.Tensor) -> None:
    sums = weights.double().sum(0)
    if bool((weights < 0).any()) or bool(((sums - 1).abs() > _TOLERANCE).any()):
        target = int((sums - 1).abs().argmax())
        raise _wrong(
            align,
            f"has weights that are negative, or that sum to {float(sums[target]):.4g} for "
            f"target class {target}",
        )


def _wrong(align: Alignment, what: str) -> FileError:
    return FileError(f"the stored mapping of {align.kind} {what}", _AGAIN)
