"""Quantization of exported files, with a report of agreement and accuracy."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ShapeInferencePass

from graphprog.backends.onnx_model.external_data import weights_beside
from graphprog.backends.onnx_model.metadata import KEY
from graphprog.backends.onnx_model.precision import (
    compute_in_float16,
    linear_in_int8,
    store_convolutions_in_int8,
    store_in_bfloat16,
)
from graphprog.backends.onnx_model.translate import PROGRAM
from graphprog.backends.onnxruntime.batches import run_in_batches
from graphprog.backends.onnxruntime.program_cache import Array, Program
from graphprog.backends.onnxruntime.providers import Providers
from graphprog.backends.onnxruntime.session import Session
from graphprog.errors import BackendError, DataError, FileError
from graphprog.ir.inputs import batch_axis, random_inputs
from graphprog.utils.files import proved_write
from graphprog.utils.html import preformatted
from graphprog.utils.numerics import Difference, difference

Precision = Literal["int8", "float16", "bfloat16"]
_RANDOM_ROWS = 8


@dataclasses.dataclass(frozen=True)
class QuantizationReport:
    """Comparison of a quantized file with the original; prints as a table.

    Attributes:
        source: precision of the source model.
        bytes_before: size of the original file, with its external data.
        bytes_after: size of the new file, likewise.
        rows: number of compared examples.
        max_absolute: largest difference of a value of the first output.
        max_relative: the same relative to that output's largest magnitude.
        label_agreement: share of rows with the same argmax over the last axis.
        accuracy_before: accuracy of the original file; None without labels.
        accuracy_after: accuracy of the new file.
    """

    source: Precision
    bytes_before: int
    bytes_after: int
    rows: int
    max_absolute: float
    max_relative: float
    label_agreement: float
    accuracy_before: float | None = None
    accuracy_after: float | None = None

    def _repr_html_(self) -> str:
        """Return the text, for notebooks."""
        return preformatted(str(self))

    def __str__(self) -> str:
        share = self.bytes_after / self.bytes_before
        lines = {
            "source in": self.source,
            "bytes": f"{self.bytes_before:,} before, {self.bytes_after:,} after ({share:.0%})",
            "rows compared": str(self.rows),
            "largest difference": f"{self.max_absolute:.3g}, relative {self.max_relative:.3g}",
            "same label": f"{self.label_agreement:.2%}",
        }
        if self.accuracy_before is not None:
            lines["accuracy"] = (
                f"{self.accuracy_before:.2%} before, {self.accuracy_after:.2%} after"
            )
        width = max(map(len, lines))
        return "\n".join(f"{name.ljust(width)}  {text}" for name, text in lines.items())


def quantize(
    path: str | os.PathLike[str],
    to: str | os.PathLike[str],
    source: Precision,
    *,
    inputs: Sequence[Array] | None = None,
    labels: Array | None = None,
    program: Program | None = None,
    providers: Providers = "auto",
) -> QuantizationReport:
    """Quantize the source model of an exported file, and compare both files on the same rows.

    The tensors and operations of the program stay in float32, and programs fit both files.

    ``int8``: linear layers and tables are computed in int8, with one scale per channel and
    dynamically quantized inputs; weights of convolutions are stored in int8, with one scale per
    channel, and computed in float32. ``float16``: computed in half precision, except for
    normalizations and softmax; this is faster on GPUs only, because a CPU casts back and forth.
    ``bfloat16``: weights are stored in bfloat16 and computed in float32, because ONNX Runtime has
    no bfloat16 operations on CPUs.

    Args:
        path: a file that :func:`graphprog.backends.onnx.export` wrote in float32.
        to: the new file, written atomically. Weights of 2 GiB and more lie beside it.
        source: precision of the source.
        inputs: examples to compare on, in the order of the inputs; None takes 8 random rows.
        labels: int64 [N], the class of each row of the first output, for the accuracy.
        program: the program to run both files with, instead of their own.
        providers: execution providers, as for :class:`graphprog.backends.onnxruntime.Session`.

    Raises:
        BackendError: the precision is unknown, the source is not float32, or the result
            does not run.
        DataError: the inputs are not what the file takes, or the labels not one per row.
        FileError: a file cannot be read or written. As with every error, an old file stays.

    Example:
        >>> report = gp.backends.onnx.quantize("task.onnx", "small.onnx", "int8", inputs=(images,))
        >>> session = gp.backends.onnxruntime.Session("small.onnx")
    """
    if source not in get_args(Precision):
        raise BackendError(f"source={source!r} is unknown; one of {', '.join(get_args(Precision))}")
    before = Session(path, providers)
    if inputs is None:
        inputs = random_inputs(before.inputs, _RANDOM_ROWS, before.contract.range or (-1, 1), 0)
    expected = _first_output(before, inputs, program)

    with weights_beside(_in_fewer_bits(_loaded(path), source), to) as ready:

        def write(temporary: Path) -> QuantizationReport:
            ir.save(ready, temporary)
            try:
                found = _first_output(Session(temporary, providers), inputs, program)
            except FileError as error:
                raise BackendError(f"{path}: in {source} it does not run: {error}") from error
            sizes = _size(path), _size(temporary)
            gap = difference(expected, found)
            return _report(source, sizes, gap, expected, found, labels)

        return proved_write(to, write)


def _loaded(path: str | os.PathLike[str]) -> ir.Model:
    """Infer the types of all values of a model."""
    model: ir.Model = ShapeInferencePass()(ir.external_data.load_to_model(ir.load(path))).model
    values = [value for node in model.graph for value in node.outputs]
    unknown = [str(value.name) for value in values if value.dtype is None]
    if unknown:
        raise BackendError(
            f"{os.fspath(path)}: the types of its values cannot be determined: "
            f"{', '.join(unknown[:5])}",
            ["export the task again"],
        )
    return model


def _size(path: str | os.PathLike[str]) -> int:
    """Return the size in bytes of a file and its external data."""
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    locations = {
        entry.value for one in tensors for entry in one.external_data if entry.key == "location"
    }
    files = [Path(path), *(Path(path).parent / name for name in locations)]
    return sum(file.stat().st_size for file in files)


def _in_fewer_bits(model: ir.Model, source: Precision) -> ir.Model:
    """Convert the source of a model to a precision."""
    weights = {v.dtype for name, v in model.graph.initializers.items() if PROGRAM not in name}
    if f"{KEY}.precision" in model.metadata_props or ir.DataType.FLOAT not in weights:
        raise BackendError(
            "the source is not in float32", ["quantize the file that was exported in float32"]
        )
    model.metadata_props[f"{KEY}.precision"] = source
    change: dict[Precision, Callable[[ir.Model], None]] = {
        "int8": store_convolutions_in_int8,
        "float16": compute_in_float16,
        "bfloat16": store_in_bfloat16,
    }
    change[source](model)
    return linear_in_int8(model) if source == "int8" else model


def _first_output(session: Session, inputs: Sequence[Array], program: Program | None) -> np.ndarray:
    """Return the first output for all rows."""
    if batch_axis(session.inputs) is None:
        return session.evaluate(inputs, program)[0]
    return run_in_batches(session, *inputs, program=program)[0]


def _report(
    source: Precision,
    sizes: tuple[int, int],
    gap: Difference,
    expected: np.ndarray,
    found: np.ndarray,
    labels: Array | None,
) -> QuantizationReport:
    before, after = expected.argmax(-1), found.argmax(-1)
    report = QuantizationReport(
        source,
        *sizes,
        rows=len(expected),
        max_absolute=gap.absolute,
        max_relative=gap.relative,
        label_agreement=float((before == after).mean()),
    )
    if labels is None:
        return report
    right = torch.as_tensor(labels).cpu().numpy()
    if right.shape != before.shape:
        raise DataError(f"labels are {list(right.shape)}, one per row is {list(before.shape)}")
    return dataclasses.replace(
        report,
        accuracy_before=float((before == right).mean()),
        accuracy_after=float((after == right).mean()),
    )
