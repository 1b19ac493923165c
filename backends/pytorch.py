"""PyTorch itself: compiled, or as a ``.pt2`` file that needs neither graphprog nor the model."""

from __future__ import annotations

import dataclasses
import io
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphprog.backends.onnx_model.export_program import exported
from graphprog.backends.onnx_model.metadata import (
    KEY,
    Deployed,
    Documented,
    describe,
    read_document,
)
from graphprog.backends.parity.bisect import require_parity
from graphprog.backends.parity.report import (
    Inputs,
    ParityReport,
    compare,
    example_batch,
    parity_batches,
)
from graphprog.capture.pt2_file.read import read_exported
from graphprog.compiler.data_checks import check_inputs
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import BackendError, FileError
from graphprog.instruments.divergence import TOLERANCE
from graphprog.io.artifact import within
from graphprog.ir.inputs import check_type
from graphprog.utils.files import open_regular, proved_write

_MAX_DOCUMENT = 2**26
_BROKEN = ["export the task again: this file is damaged"]


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled task; call it like the task. It reads the task's own tensors, not copies.

    Attributes:
        task: the compiled task.
        run: the compiled graph: flat tensor inputs to flat outputs.
        report: how it compared with the task.
    """

    task: ReprogrammedModel
    run: Callable[..., tuple[Any, ...]]
    report: ParityReport

    def __call__(self, *inputs: torch.Tensor) -> Any:
        """Run on the tensor inputs in order; gradients flow as in the task.

        Raises:
            DataError: an input of another shape or dtype than the graph takes.
        """
        for spec, value in zip(self.task.inputs, inputs, strict=True):
            check_type(spec, value)
        return pytree.tree_unflatten(self.run(*inputs), self.task.graph.out_spec)


def compiled(
    task: ReprogrammedModel,
    *,
    tolerance: float = TOLERANCE,
    inputs: Inputs | None = None,
    **options: Any,
) -> Compiled:
    """Compile a task with ``torch.compile``, as one graph, and compare it with the task.

    Args:
        task: what to compile, on the device it is on.
        tolerance: as in :func:`graphprog.backends.parity.report.compare`.
        inputs: examples to compare on; None takes 2 and 5 random rows.
        options: of ``torch.compile``, such as ``backend="aot_eager"`` or ``mode``. Unless
            ``dynamic=False``, one compilation serves every batch of 2 rows and more.

    Raises:
        BackendError: it cannot be compiled, or computes something else; says where first.
    """
    batches = parity_batches(task, inputs, smallest=2)
    run = _compile(task, None, options)

    def probe(nodes: tuple[str, ...], example: Inputs) -> list[np.ndarray]:
        return _evaluate(task, _compile(task, nodes, options), example)

    report = compare(
        task, lambda x: _evaluate(task, run, x), batches, "pytorch (compile)", tolerance
    )
    return Compiled(task, run, require_parity(task, report, batches[0], probe))


def _compile(
    task: ReprogrammedModel, nodes: tuple[str, ...] | None, options: dict[str, Any]
) -> Callable[..., tuple[Any, ...]]:
    module = task.graph.executable(nodes, task.device)
    settings = {"fullgraph": True, "dynamic": True, **options}
    run: Callable[..., tuple[Any, ...]] = torch.compile(module, **settings)
    return run


def _evaluate(
    task: ReprogrammedModel, run: Callable[..., tuple[Any, ...]], inputs: Inputs
) -> list[np.ndarray]:
    device = task.device
    try:
        with torch.no_grad():
            outputs = run(*(value.to(device) for value in inputs))
    except Exception as error:
        raise BackendError(
            f"torch.compile failed: {type(error).__name__}: {str(error).strip()[:600]}",
            [
                "install a C++ compiler, which the default backend of torch.compile needs",
                'compiled(task, backend="aot_eager"), which needs none',
            ],
        ) from error
    return _arrays(outputs)


def _arrays(outputs: Sequence[Any]) -> list[np.ndarray]:
    tensors = (value for value in outputs if isinstance(value, torch.Tensor))
    return [value.detach().cpu().to(torch.float64).numpy() for value in tensors]


def export(
    task: ReprogrammedModel,
    path: str | os.PathLike[str],
    *,
    tolerance: float = TOLERANCE,
    inputs: Inputs | None = None,
) -> ParityReport:
    """Write a task as a ``.pt2`` file of ``torch.export``, after running what was written.

    It carries the document that ONNX files carry too; the program stays trainable in it.

    Args:
        task: what to export; it is not changed.
        path: the file, whose name ends in ``.pt2``; written atomically.
        tolerance: as in :func:`graphprog.backends.parity.report.compare`.
        inputs: examples to compare on, one and all; None takes 1 and 5 random rows.

    Raises:
        BackendError: it cannot be exported, or computes something else; says where first.
        FileError: the place cannot be written, or the name ends in something else.
    """
    if not os.fspath(path).endswith(".pt2"):
        raise FileError(f"{os.fspath(path)}: the name of an exported program ends in .pt2")
    batches, example = parity_batches(task, inputs), example_batch(task, inputs)
    program = exported(task, example)

    def probe(nodes: tuple[str, ...], given: Inputs) -> list[np.ndarray]:
        return _arrays(exported(task, example, nodes).module(check_guards=False)(*given))

    def write(temporary: Path) -> ParityReport:
        stored = io.BytesIO()  # PyTorch's own writer ends the process on a full disk
        torch.export.save(program, stored, extra_files={KEY: describe(task)})
        temporary.write_bytes(stored.getbuffer())
        loaded = load(temporary, trust=True)  # it was written a moment ago
        report = compare(
            task, lambda x: _arrays(loaded.evaluate(x)), batches, "pytorch (.pt2)", tolerance
        )
        return require_parity(task, report, example, probe)

    return proved_write(path, write)


@dataclasses.dataclass(frozen=True)
class Loaded(Documented):
    """A task read from a ``.pt2`` file; call it with the task's inputs.

    Attributes:
        document: the JSON document of the file.
        module: the exported graph; ``program.*`` are its trainable parameters.
    """

    document: Deployed
    module: nn.Module

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Run on one batch, on the device the task was exported on.

        Returns:
            The first output: target logits [B, classes] where the program aligns.

        Raises:
            DataError: inputs of another number, shape, dtype or range than the contract says.
        """
        return self.evaluate(inputs)[0]

    def evaluate(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """All outputs; otherwise like a call."""
        check_inputs(self.inputs, self.contract, inputs)
        outputs: tuple[torch.Tensor, ...] = tuple(self.module(*inputs))
        return outputs


def load(path: str | os.PathLike[str], *, trust: bool = False) -> Loaded:
    """Load a file that :func:`export` wrote; nothing in it is run while it is read.

    Args:
        path: the file.
        trust: read it as PyTorch does, which runs code that the file may hold: for a file of your
            own with operators of other libraries than PyTorch and torchvision.

    Raises:
        FileError: the file is missing, damaged, not one of graphprog's, or, without ``trust``,
            holds anything but data.
    """
    with within(path):
        document = read_document(_document_text(path))
    program = read_exported(path, trust)
    return Loaded(document, program.module(check_guards=False))


def _document_text(path: str | os.PathLike[str]) -> str | None:
    """Return the text of the document, if the archive has one."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith(f"/extra/{KEY}")]
            found = archive.getinfo(names[0]) if names else None
            if found is None:
                return None
            if found.compress_type != zipfile.ZIP_STORED or found.file_size > _MAX_DOCUMENT:
                raise FileError("its document is larger than that of any task", _BROKEN)
            return archive.read(found).decode("utf-8")
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError) as error:
        raise FileError(f"cannot be read: {error}", ["check the path", *_BROKEN]) from error
