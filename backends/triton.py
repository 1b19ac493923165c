"""A model repository of Triton Inference Server: the layout on disk, and the configuration.

    repository/
      digits/
        config.pbtxt     what goes in and out, for the server
        labels.txt       names of the classes, where the program has them
        1/model.onnx     the version

The server itself is not needed to write it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphprog.backends.onnx.export import Mode
from graphprog.backends.onnx.export import export as export_onnx
from graphprog.backends.onnx_model.translate import BATCH
from graphprog.backends.onnxruntime.providers import open_session
from graphprog.backends.parity.report import Inputs, ParityReport
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import BackendError
from graphprog.instruments.divergence import TOLERANCE
from graphprog.utils.files import atomic_write

_TYPES = {
    "float": "FP32",
    "double": "FP64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "bool": "BOOL",
    **{
        f"{sign}int{bits}": f"{sign.upper()}INT{bits}"
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def export(
    task: ReprogrammedModel,
    path: str | os.PathLike[str],
    *,
    name: str,
    program: Mode = "folded",
    version: int = 1,
    max_batch_size: int = 64,
    tolerance: float = TOLERANCE,
    inputs: Inputs | None = None,
) -> ParityReport:
    """Write a task into a model repository, as a version of a model of that name.

    Where every input and output has one entry a row, the server joins requests into batches. A
    program among the inputs has none, so that clients then send batches of their own.

    Args:
        task: what to export; it is not changed.
        path: folder of the repository; made where it is missing.
        name: of the model, by which clients ask for it.
        program: ``"folded"``; or ``"inputs"``, and every request brings its program.
        version: a number from 1; the server serves the highest unless configured otherwise.
        max_batch_size: most rows that the server joins.
        tolerance: as in :func:`graphprog.backends.parity.report.compare`.
        inputs: as in :func:`graphprog.backends.onnx.export`.

    Raises:
        BackendError: as by :func:`graphprog.backends.onnx.export`; or the name, the version, or
            what is asked of the program cannot be had.
        FileError: the place cannot be written.
    """
    if not _NAME.fullmatch(name) or version < 1 or max_batch_size < 1:
        raise BackendError(
            f"name={name!r}, version={version}, max_batch_size={max_batch_size}: a name of "
            "letters, digits, '.', '_' and '-', and numbers from 1, are what the server takes"
        )
    if program not in ("folded", "inputs"):
        raise BackendError(
            f"program={program!r}: the server replaces no initializer", ['"folded"', '"inputs"']
        )
    folder = Path(path) / name
    model = folder / str(version) / "model.onnx"
    model.parent.mkdir(parents=True, exist_ok=True)
    report = export_onnx(task, model, program=program, tolerance=tolerance, inputs=inputs)
    labels = task.spec.contract.labels
    if labels:
        _write(folder / "labels.txt", "".join(f"{label}\n" for label in labels))
    session = open_session(model, "cpu")
    text = configuration(
        name, session.get_inputs(), session.get_outputs(), max_batch_size, bool(labels)
    )
    _write(folder / "config.pbtxt", text)
    return report


def _write(path: Path, text: str) -> None:
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def configuration(
    name: str,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    max_batch_size: int,
    labeled: bool = False,
) -> str:
    """Text of ``config.pbtxt``, which is a ``ModelConfig`` message.

    Args:
        name: of the model.
        inputs: of ONNX Runtime's session: name, type and shape of each; outputs likewise.
        outputs: see there.
        max_batch_size: for models whose inputs and outputs all have a batch.
        labeled: whether ``labels.txt`` names the classes of the first output.
    """
    batched = all(entry.shape[:1] == [BATCH] for entry in [*inputs, *outputs])
    lines = [
        f"name: {json.dumps(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {max_batch_size if batched else 0}",
    ]
    for entry in inputs:
        lines += ["input {", *_tensor(entry, batched), "}"]
    for index, entry in enumerate(outputs):
        named = ['  label_filename: "labels.txt"'] if labeled and index == 0 else []
        lines += ["output {", *_tensor(entry, batched), *named, "}"]
    if batched:
        lines.append("dynamic_batching { }")
    return "\n".join(lines) + "\n"


def _tensor(entry: Any, batched: bool) -> list[str]:
    kind = entry.type.removeprefix("tensor(").removesuffix(")")
    sizes = [size if isinstance(size, int) else -1 for size in entry.shape[batched:]]
    lines = [
        f"  name: {json.dumps(entry.name)}",
        f"  data_type: TYPE_{_TYPES[kind]}",
        f"  dims: [ {', '.join(map(str, sizes or [1]))} ]",
    ]
    # the server has no tensors without axes
    return lines if sizes else [*lines, "  reshape { shape: [ ] }"]
