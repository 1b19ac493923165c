"""Recording the values at interfaces, from one run or over a data set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, overload

import torch

from graphprog.analysis.value_axes import position_axis
from graphprog.errors import DataError
from graphprog.instruments.places import Inputs, Model, Places, flat_inputs, graph_of, places_of
from graphprog.instruments.recording import Recording, RecordingWriter
from graphprog.instruments.selection import Positions, Reduce, Selection
from graphprog.instruments.stream import batches_of, progress_bar
from graphprog.ir.graph import Graph
from graphprog.rewriting.effects import require_computed


class Recorder:
    """Reads some interfaces of a graph; the run stops after the last of them.

    Args:
        graph: the graph to run.
        at: the interfaces.
        selection: what of each value is kept.
    """

    def __init__(self, graph: Graph, at: Places, selection: Selection) -> None:
        self.graph = graph = graph_of(graph, at)
        self.places = places_of(graph, at)
        require_computed(graph, self.places)
        self.selection = selection
        read = selection.positions is not None or selection.reduce == "mean"
        self._axes = {
            name: position_axis(graph, place) if read else None
            for name, place in self.places.items()
        }
        placed = any(axis is not None for axis in self._axes.values())
        self._mask = selection.mask_input(graph) if placed else None
        self._nodes = [place.node for place in self.places.values()]

    def mean_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape in which a mean over positions broadcasts to a row of the value.

        It is [d] for values [B, S, d], and [C, 1, 1] for [B, C, H, W].

        Raises:
            DataError: another axis has no fixed size.
        """
        shape, axis = self.places[name].shape, self._axes[name]
        gone = range(2, len(shape)) if axis is None else (axis,)
        sizes = [1 if number in gone else size for number, size in enumerate(shape)][1:]
        while len(sizes) > 1 and sizes[0] == 1:
            del sizes[0]
        fixed = tuple(size for size in sizes if isinstance(size, int))
        if len(fixed) < len(sizes) or not sizes:
            raise DataError(
                f"the value at {name!r} {self.places[name].type_text} does not have features of "
                "fixed size"
            )
        return fixed

    def __call__(self, flat: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the selected values of one batch, by name of the interface."""
        values = self.graph.values_of(self._nodes, flat)
        own = dict(zip(self.graph.call_spec.inputs, flat, strict=True))
        present = own[self._mask] if self._mask else None
        found: dict[str, torch.Tensor] = {}
        for (name, axis), value in zip(self._axes.items(), values, strict=True):
            found |= self.selection.apply(name, value, axis, present)
        return found


@overload
def record(
    model: Model,
    inputs: Inputs,
    at: Places,
    *,
    positions: Positions = None,
    reduce: Reduce = None,
    to: None = None,
) -> dict[str, torch.Tensor]: ...


@overload
def record(
    model: Model,
    inputs: Any,
    at: Places,
    *,
    positions: Positions = None,
    reduce: Reduce = None,
    to: str | os.PathLike[str],
    batch_size: int = 32,
    progress: bool | None = None,
) -> Recording: ...


def record(
    model: Model,
    inputs: Any,
    at: Places,
    *,
    positions: Positions = None,
    reduce: Reduce = None,
    to: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
    progress: bool | None = None,
) -> dict[str, torch.Tensor] | Recording:
    """Record the values at interfaces, in evaluation and without gradients.

    Args:
        model: a graph, or a compiled model with its program.
        inputs: tensors in order or by name, for one run; with ``to``, data: such tensors, a data
            set with a length, or a ``DataLoader``. One element more than the model has inputs is
            kept as ``labels``.
        at: interfaces, such as ``["hidden[*]", "logits"]``.
        positions: which positions of values [B, S, d] to keep: an index, indices, a slice,
            ``"last"`` (of the tokens that are there), ``"tokens"`` (those that are there, as rows
            [N, d]), or a bool mask [B, S].
        reduce: what to keep of them: ``"mean"`` over positions (over height and width of
            [B, C, H, W]), ``"norm"`` of the features, ``"top-5"`` (the values largest in magnitude,
            and their places under ``"….indices"``), or a function of the value.
        to: folder for the recording of a data set. A recording that was interrupted goes on.
        batch_size: rows of a run, where the data are not a loader.
        progress: whether to show a bar; None shows it on a terminal.

    Returns:
        Tensors by name of the interface, with the dtype that they have in the model; with ``to``,
        the :class:`Recording` in the folder.

    Raises:
        DataError: inputs do not fit the graph, or a position is beyond the length.
        FileError: the folder cannot be written, or holds a recording of something else.
        InterfaceError: a name is unknown or ambiguous, or the value comes after what the
            alignment of the program reads.

    Example:
        >>> values = gp.record(graph, images, at=["hidden[*]", "logits"])
        >>> values["hidden[0]"].shape, values["logits"].shape
        (torch.Size([4, 8, 8, 8]), torch.Size([4, 20]))
    """
    graph = graph_of(model)
    recorder = Recorder(graph, at, Selection(positions, reduce))
    if to is None:
        return recorder(flat_inputs(graph, inputs))
    keys = {name: place.key for name, place in recorder.places.items()}
    writer = RecordingWriter(to, graph, keys, recorder.selection.text)
    for batch in _remaining(graph, inputs, batch_size, writer, progress):
        writer.add(*batch_values(recorder, graph, *batch))
    return writer.finish()


def batch_values(
    recorder: Recorder, graph: Graph, inputs: Inputs, labels: torch.Tensor | None
) -> tuple[dict[str, torch.Tensor], int]:
    """Return the values of a batch with its labels, and its number of rows.

    Raises:
        DataError: a value does not have one entry for each row.
    """
    flat = flat_inputs(graph, inputs)
    rows = len(flat[0])
    found = {name: value.cpu() for name, value in recorder(flat).items()}
    for name, value in found.items():
        if value.ndim == 0 or len(value) != rows:
            raise DataError(
                f"the value at {name!r} has shape {list(value.shape)}, not one entry for each of "
                f"{rows} rows",
                ['add reduce="mean"', "record such values without to="],
            )
    return (found if labels is None else found | {"labels": labels}), rows


def _remaining(
    graph: Graph, data: Any, batch_size: int, writer: RecordingWriter, progress: bool | None
) -> Iterator[tuple[Any, torch.Tensor | None]]:
    """Yield the batches that the folder does not have yet."""
    if writer.complete:
        return
    batches, total = batches_of(data, len(graph.placeholders), batch_size)
    done = 0
    for inputs, labels, rows in progress_bar(batches, total, "recording", progress):
        done += rows
        if done > writer.rows:
            if done - rows < writer.rows:
                raise DataError(
                    f"the recording stopped after {writer.rows} rows, inside a batch of these data",
                    ["use the batch size that it was begun with", "record to another folder"],
                )
            yield inputs, labels
