"""ONNX files on disk: the graph, and external data for large weights.

One file holds less than 2 GiB. Where a model has more, or several graphs share their weights, these
lie in a file of their own, ``<stem>-<hash of the content>.data``, each once, however many graphs
read it. Since other weights make another name, a graph never meets the data of another export.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import fx

from graphprog.backends.onnx_model.metadata import KEY, describe, viewer_entries
from graphprog.backends.onnx_model.plain_words import describe_in_words
from graphprog.backends.onnx_model.translate import MAX_BYTES, PROGRAM
from graphprog.backends.onnxruntime.session import Session
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import BackendError, FileError
from graphprog.ir.graph import Graph
from graphprog.rewriting.refusal import RefusalError
from graphprog.utils.files import Result, atomic_write, proved_write
from graphprog.utils.version import __version__

INSIDE = 1024
"""Bytes up to which a tensor stays in the graph: shapes and the like, which loading computes."""

_PAGE = 4096


@contextmanager
def weights_beside(model: ir.Model, path: str | os.PathLike[str]) -> Iterator[ir.Model]:
    """Move large weights to external data; remove the files if an exception follows.

    Inside the block the model is ready to be saved in the folder of ``path``, under any name.
    """
    target = Path(os.path.realpath(path))
    tensors = (value.const_value for value in model.graph.initializers.values())
    if sum(tensor.nbytes for tensor in tensors if tensor is not None) <= MAX_BYTES:
        yield model
        return
    with beside([model], target.parent, target.stem):
        yield model


def save_proved(
    model: ir.Model, path: str | os.PathLike[str], prove: Callable[[Path], Result]
) -> Result:
    """Save a model atomically, if a function of the written file raises nothing.

    Returns:
        What the function returns.

    Raises:
        FileError: the place cannot be written. As with every error, an old file stays.
    """

    def write(temporary: Path) -> Result:
        ir.save(ready, temporary)
        return prove(temporary)

    with weights_beside(model, path) as ready:
        return proved_write(path, write)


@contextmanager
def beside(models: Sequence[ir.Model], folder: Path, stem: str) -> Iterator[Path]:
    """Move the weights of models, in place, into one file; take it away if the block fails.

    Args:
        models: their weights, other than those of programs, are stored once each.
        folder: of the file, and of the graphs that will be saved.
        stem: what its name begins with.

    Raises:
        FileError: the place cannot be written.
    """
    values = [value for model in models for value in _weights(model)]
    pieces: dict[bytes, tuple[int, int]] = {}
    order: list[ir.Value] = []
    keys = [hashlib.sha256(_bytes(value)).digest() for value in values]
    end = 0
    for key, value in zip(keys, values, strict=True):
        if key not in pieces:
            size = len(_bytes(value))
            pieces[key] = end, size
            order.append(value)
            end += -(-size // _PAGE) * _PAGE
    path = folder / f"{stem}-{hashlib.sha256(b''.join(pieces)).hexdigest()[:12]}.data"
    existed = path.exists()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for (offset, _), value in zip(pieces.values(), order, strict=True):
                file.seek(offset)
                file.write(_bytes(value))
            file.truncate(end)

    atomic_write(path, write)
    for key, value in zip(keys, values, strict=True):
        _point(value, path, *pieces[key])
    try:
        yield path
    except BaseException:
        if not existed:
            path.unlink(missing_ok=True)
        raise


def _weights(model: ir.Model) -> list[ir.Value]:
    return [
        value
        for name, value in model.graph.initializers.items()
        if not name.startswith(PROGRAM)
        and value.const_value is not None
        and value.const_value.nbytes > INSIDE
    ]


def _bytes(value: ir.Value) -> memoryview:
    assert value.const_value is not None
    array: np.ndarray = np.ascontiguousarray(value.const_value.numpy())
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def _point(value: ir.Value, path: Path, offset: int, size: int) -> None:
    tensor = value.const_value
    assert tensor is not None
    value.const_value = ir.ExternalTensor(
        path.name,
        offset,
        size,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=value.name or "",
        base_dir=path.parent,
    )


def checked_session(path: Path, graph: Graph) -> Session:
    """A session on a file that was just written, which may be more than runtimes can do.

    Args:
        path: path of the file.
        graph: what the file computes, for messages.

    Raises:
        BackendError: the file is not valid ONNX, or ONNX Runtime lacks an operation on a dtype.
    """
    try:
        onnx.checker.check_model(path, full_check=True)
        return Session(path, providers="cpu")
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, FileError) as error:
        odd = _in_bfloat16(graph)
        reason = next(iter(str(error).splitlines()), "").removeprefix(f"{path}: ")
        raise BackendError(
            "\n  ".join([f"the graph became an ONNX model that cannot be run: {reason}", *odd]),
            [f"{'make these' if odd else 'capture the source model in'} float32", "another opset"],
        ) from error


def _in_bfloat16(graph: Graph) -> list[str]:
    """Name what is in bfloat16, with its line, if the inputs of the model are not."""
    nodes = [node for node in graph.code.nodes if _is_bfloat16(node)]
    if any(node.op == "placeholder" for node in nodes):
        return []
    return [
        RefusalError(node, "in bfloat16, unlike the inputs", next(iter(node.users), None)).text
        for node in nodes
        if not any(map(_is_bfloat16, node.all_input_nodes))
    ]


def _is_bfloat16(node: fx.Node) -> bool:
    return getattr(node.meta.get("val"), "dtype", None) is torch.bfloat16


def describe_model(
    model: ir.Model,
    task: ReprogrammedModel,
    mode: str,
    per_row: Mapping[str, int | None] | None = None,
    checked: bool = False,
) -> None:
    """Write the document into a model's metadata, and what it is for into its ``doc_string``.

    Args:
        model: the model.
        task: what it computes.
        mode: where its program is.
        per_row: as in the document.
        checked: whether it checks the range of its first input.
    """
    describe_in_words(model, task, checked)
    model.producer_name = KEY
    model.producer_version = __version__
    model.graph.name = task.base.name
    model.metadata_props[KEY] = describe(task, per_row)
    entries = viewer_entries(task) | {"mode": mode, "version": __version__}
    model.metadata_props.update({f"{KEY}.{name}": text for name, text in entries.items()})
