"""Checks of inputs and labels against the contract of a program."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import fx, nn

from graphprog.compiler.program import Contract
from graphprog.errors import DataError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.inputs import InputSpec, check_type
from graphprog.ir.sizes import Size, same_size

SLACK = 1e-3
"""How far values may lie outside of the range, such as after resizing."""


def check_inputs(
    specs: Sequence[InputSpec],
    contract: Contract,
    inputs: Sequence[torch.Tensor],
    rows: Mapping[str, int] | None = None,
) -> None:
    """Check shapes, dtypes and finiteness of the inputs, and the range of the first one.

    Args:
        specs: inputs of the task.
        contract: contract of the program, with the range.
        inputs: the inputs, in order.
        rows: for inputs that hold ids, the number of rows of the table that has them.

    Raises:
        DataError: names the input, and what was expected and found.
    """
    if len(inputs) != len(specs):
        names = ", ".join(spec.name for spec in specs)
        raise DataError(f"a batch has {len(inputs)} inputs, the graph takes {names}")
    for number, (spec, value) in enumerate(zip(specs, inputs, strict=True)):
        check_type(spec, value)
        if rows is not None and spec.name in rows:
            _check_ids(spec.name, value, rows[spec.name])
        if value.is_floating_point():
            _check_values(contract, spec.name, value, ranged=number == 0)


def _check_ids(name: str, value: torch.Tensor, rows: int) -> None:
    if value.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(value))
    if low < 0 or high >= rows:
        outside = ((value < 0) | (value >= rows)).reshape(value.shape[0] if value.ndim else 1, -1)
        row = int(outside.any(1).nonzero()[0])
        raise DataError(
            f"input {name!r}: row {row} of the batch has the id {high if high >= rows else low}, "
            f"but the ids of its table are 0 to {rows - 1}",
            [
                "use the tokenizer that belongs to the model",
                "pad inputs with an id of the vocabulary; -100 is for labels",
            ],
        )


def _check_values(contract: Contract, name: str, value: torch.Tensor, ranged: bool) -> None:
    if value.numel() == 0:
        return
    # one pass over the data: minimum or maximum is not finite if any entry is not
    low, high = (float(bound) for bound in torch.aminmax(value.detach()))
    if not math.isfinite(low) or not math.isfinite(high):
        finite = torch.isfinite(value).reshape(value.shape[0] if value.ndim else 1, -1)
        row = int((~finite).any(1).nonzero()[0])
        raise DataError(
            f"input {name!r}: row {row} of the batch has values that are not finite",
            ["clean the data: torch.isfinite(x) finds the entries"],
        )
    bounds = contract.range
    if not ranged or bounds is None:
        return
    if low < bounds[0] - SLACK or high > bounds[1] + SLACK:
        remedies = ["check the contract's space and range against the data"]
        if bounds == (0.0, 1.0) and low >= 0 and high <= 255:
            remedies.insert(0, "divide images of [0, 255] by 255")
        raise DataError(
            f"input {name!r}: values lie in [{low:g}, {high:g}], but the contract of the program "
            f"({contract.space} space) says [{bounds[0]:g}, {bounds[1]:g}]",
            remedies,
        )


def check_labels(labels: torch.Tensor, rows: int | None, classes: int | None) -> None:
    """Check the labels of a batch; without a number of classes, only their type and shape.

    Raises:
        DataError: they are not int64 [rows], or outside the range of classes.
    """
    if labels.dtype != torch.int64 or labels.ndim != 1 or rows not in (None, len(labels)):
        raise DataError(
            f"labels must be int64 [{'B' if rows is None else rows}], one class number per row, "
            f"not {labels.dtype}{list(labels.shape)}",
            ["use labels.long() for other integers, labels.argmax(1) for one-hot rows"],
        )
    if classes is None or not len(labels):
        return
    low, high = (int(bound) for bound in torch.aminmax(labels))
    if low < 0 or high >= classes:
        remedies = ["check the label numbering"]
        if low >= 0:
            remedies.insert(0, f"set classes={high + 1} in the alignment")
        if low == 1 and high == classes:
            remedies.insert(0, "subtract 1: the labels are numbered from 1")
        raise DataError(
            f"labels lie in [{low}, {high}], but the program has {classes} classes, "
            "numbered from 0",
            remedies,
        )


def warn_uncounted(kind: str, alignment: nn.Module | None) -> None:
    """Warn if a statistical label mapping was never fitted: it maps the first classes.

    Args:
        kind: kind of the alignment.
        alignment: its module; None without an alignment.
    """
    refreshed = getattr(alignment, "refreshed", None)
    if isinstance(refreshed, torch.Tensor) and not bool(refreshed):
        warnings.warn(
            f"{kind} was never fitted to data: until gp.fit, it maps the first "
            "source classes to the targets",
            stacklevel=3,
        )


def class_count(graph: Graph) -> int | None:
    """Return the number of classes of a graph's single output [B, K]; None for other outputs."""
    outputs = graph.output_nodes
    value = fake_tensor(outputs[0]) if len(outputs) == 1 and hasattr(outputs[0], "meta") else None
    if not isinstance(value, torch.Tensor) or value.ndim != 2 or not value.is_floating_point():
        return None
    size: object = value.shape[1]
    return size if isinstance(size, int) else None


def rows_of_output(graph: Graph, inputs: Sequence[torch.Tensor]) -> int | None:
    """Return how many rows the first output has for some inputs; None if it depends on the data.

    The rows of packed graphs, for example, are not those of their nodes.
    """
    first = graph.output_nodes[0]
    value = first.meta.get("val") if isinstance(first, fx.Node) else None
    if not isinstance(value, torch.Tensor) or not value.ndim:
        return len(inputs[0])
    rows: Size = value.shape[0]
    if isinstance(rows, int):
        return rows
    for node, given in zip(graph.placeholders, inputs, strict=True):
        for size, length in zip(fake_tensor(node).shape, given.shape, strict=True):
            if same_size(size, rows):
                return length
    return None
