"""Inputs of a graph: names, shapes and dtypes, checks, and random examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from graphprog.errors import DataError
from graphprog.ir.call_spec import dense
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.interface import dtype_text
from graphprog.ir.symbols import size_text

_HALF = (torch.float16, torch.bfloat16)


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """Name, shape (letters for dynamic axes) and dtype of one input.

    Attributes:
        captured: sizes of the example at capture; empty if unknown.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: torch.dtype
    captured: tuple[int, ...] = dataclasses.field(default=(), compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.name}: {dtype_text(self.dtype)}[{','.join(map(str, self.shape))}]"


def inputs_of(graph: Graph) -> tuple[InputSpec, ...]:
    """Return the inputs of a graph, in order."""
    specs = []
    for node in graph.placeholders:
        value = fake_tensor(node)
        shape = tuple(size_text(size, graph.symbols) for size in value.shape)
        sizes = tuple(_captured(size) for size in value.shape)
        known = tuple(size for size in sizes if size is not None)
        specs.append(
            InputSpec(
                str(node.target), shape, value.dtype, known if len(known) == len(sizes) else ()
            )
        )
    return tuple(specs)


def _captured(size: Any) -> int | None:
    """Return the example of a size; ``int()`` of a SymInt would fix it."""
    if not isinstance(size, torch.SymInt):
        return int(size)
    return int(size.node.hint) if size.node.has_hint() else None


def _is_fixed(size: int | str) -> bool:
    return isinstance(size, int)


def batch_axis(inputs: Sequence[InputSpec]) -> str | None:
    """Return the letter of the batch axis: the first dynamic axis 0 of an input; None without one.

    If there are integers of another dynamic length, such as the edges [2, E] of a graph network,
    axis 0 holds parts of one example and not examples.
    """
    points = [spec.shape for spec in inputs if not spec.dtype.is_floating_point and spec.shape]
    if any(isinstance(shape[0], int) and not all(map(_is_fixed, shape)) for shape in points):
        return None
    firsts = [spec.shape[0] for spec in inputs if spec.shape]
    return next((size for size in firsts if isinstance(size, str)), None)


def row_inputs(inputs: Sequence[InputSpec]) -> list[bool]:
    """Return for each input whether its axis 0 is that of the rows.

    A model that broadcasts a mask [T, S] to its tokens [B, S] leaves T and B apart, but a second
    axis that both share says that these are the same rows.
    """
    letter = batch_axis(inputs)
    own = [letter is not None and spec.shape[:1] == (letter,) for spec in inputs]
    shared = {
        size
        for spec, by_row in zip(inputs, own, strict=True)
        for size in spec.shape[1:]
        if by_row and isinstance(size, str)
    }
    return [
        by_row or (isinstance(first, str) and not shared.isdisjoint(rest))
        for by_row, (first, *rest) in zip(own, (spec.shape or (0,) for spec in inputs), strict=True)
    ]


def rows_of(inputs: Sequence[InputSpec], values: Sequence[torch.Tensor]) -> int:
    """Return the length of the batch axis; 1 if it is fixed."""
    axis = batch_axis(inputs)
    pairs = zip(inputs, values, strict=True)
    return next((len(value) for spec, value in pairs if axis and spec.shape[:1] == (axis,)), 1)


def random_inputs(
    inputs: Sequence[InputSpec], batch: int, bounds: tuple[float, float], seed: int
) -> tuple[torch.Tensor, ...]:
    """Return random tensors on the CPU: uniform floats in ``bounds``, integers 0 or 1.

    Each row of integers has a 1. Dynamic axes other than axis 0 have their length at capture, or 8.
    """
    generator = torch.Generator().manual_seed(seed)
    low, high = bounds
    found = []
    for spec in inputs:
        captured = spec.captured or (8,) * len(spec.shape)
        shape = [
            size if isinstance(size, int) else batch if axis == 0 else captured[axis]
            for axis, size in enumerate(spec.shape)
        ]
        if spec.dtype.is_floating_point:
            value = torch.rand(shape, generator=generator) * (high - low) + low
        else:
            value = torch.randint(0, 2, shape, generator=generator)
            if len(shape) > 1:  # with a mask of zeros, attention has nothing to attend to
                value[..., 0] = 1
        found.append(value.to(spec.dtype))
    return tuple(found)


def check_type(spec: InputSpec, value: Any) -> None:
    """Check shape and dtype of one input.

    Raises:
        DataError: it differs; the message has both. Or it is not a dense tensor with values.
    """
    value = dense(spec.name, value)
    fits = value.ndim == len(spec.shape) and all(
        _allows(wanted, size) for wanted, size in zip(spec.shape, value.shape, strict=True)
    )
    half = value.dtype in _HALF and spec.dtype.is_floating_point
    if not fits or (value.dtype != spec.dtype and not half):
        given = f"{dtype_text(value.dtype)}[{','.join(map(str, value.shape))}]"
        raise DataError(
            f"the graph takes {spec}, but was given {given}",
            _advice(spec, value, fits),
        )


def _allows(wanted: int | str, size: int) -> bool:
    """Whether an axis may have a size: a fixed one, any, or any multiple, as for ``8*S``."""
    if isinstance(wanted, int):
        return wanted == size
    factor, times, _ = wanted.partition("*")
    return not (times and factor.isdigit()) or size % int(factor) == 0


def _advice(spec: InputSpec, value: torch.Tensor, fits: bool) -> list[str]:
    if fits and spec.dtype.is_floating_point:
        bytes_given = value.dtype == torch.uint8
        return ["value.float() / 255, for images of [0, 255]" if bytes_given else "value.float()"]
    if fits:
        return [f"value.to({spec.dtype})"]
    if value.ndim == len(spec.shape) - 1:
        return ["use value[None]: a single example needs a batch axis"]
    return [
        "pass examples of that shape; channels come before height and width",
        "use gp.ResizePad(shape=...) in the program to resize and pad examples",
    ]
