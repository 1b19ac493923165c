"""Capture: from a PyTorch model to a Graph."""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from graphprog.errors import CaptureError, FileError
from graphprog.graph import Graph
from graphprog.lift import lift
from graphprog.structure import with_structure
from graphprog.taps import tapping

DynamicAxes = Mapping[str, Mapping[int, str]]


def capture(
    model: nn.Module | ExportedProgram | str | os.PathLike[str],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    dynamic_axes: DynamicAxes | None = None,
) -> Graph:
    """Capture a model as a Graph; its weights are shared, not copied.

    The model is traced by ``torch.export`` in eval mode, non-strict first and strict second, and
    is left exactly as it was found. An ``fx.GraphModule`` is a model like any other. An
    ``ExportedProgram`` or ``.pt2`` file is taken as it is: it must have been exported in eval mode,
    and ``args``, ``kwargs`` and ``dynamic_axes`` were decided then.

    Args:
        model: what to capture.
        args: example positional arguments.
        kwargs: example keyword arguments; only those given here exist in the graph.
        dynamic_axes: per input name, the axes whose length may vary and what they are called,
            such as ``{"input_ids": {0: "batch", 1: "sequence"}}``. Without it, axis 0 of every
            tensor is the batch. An example of length 1 on such an axis is repeated, since
            tracing would fix the length 1.

    Raises:
        CaptureError: the model cannot be traced. The text has both tracing errors, the line of
            user code that stopped them, and what to try.
        FileError: the ``.pt2`` file cannot be read.
    """
    if isinstance(model, str | os.PathLike):
        return _from_exported(_read(Path(model)), Path(model).stem, dynamic_axes)
    if isinstance(model, ExportedProgram):
        return _from_exported(model, "exported", dynamic_axes)
    if not isinstance(model, nn.Module):
        raise CaptureError(
            f"capture takes an nn.Module, ExportedProgram or .pt2 path, not {type(model).__name__}"
        )
    args, kwargs = tuple(args), dict(kwargs or {})
    names = _input_names(model, args, kwargs)
    axes = _checked_axes(names, dynamic_axes)
    args, kwargs = _widened(args, kwargs, names, axes)
    exported = _export(
        model, args, kwargs, _dynamic_shapes(args, kwargs, names, axes, dynamic_axes)
    )
    graph = lift(exported, type(model).__name__, axes)
    _check_dynamic(graph, dynamic_axes)
    return with_structure(graph)


def _from_exported(program: ExportedProgram, name: str, axes: DynamicAxes | None) -> Graph:
    if axes is not None:
        raise CaptureError("dynamic axes of an exported program were fixed when it was exported")
    return with_structure(lift(program, name, {}))


def _read(path: Path) -> ExportedProgram:
    if not path.is_file():
        raise FileError(f"{path}: no such file")
    try:
        return torch.export.load(path)
    except Exception as error:
        raise FileError(
            f"{path}: not a readable .pt2 file: {error}", ["write it with torch.export.save"]
        ) from error


def _input_names(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[str, Any]]:
    """Name and value of every leaf of a call, in pytree order."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    found: list[tuple[str, Any]] = []
    for position, value in enumerate(args):
        fits = position < len(parameters) and parameters[position].kind in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        )
        found += _named_leaves(parameters[position].name if fits else f"input{position}", value)
    for name, value in kwargs.items():
        found += _named_leaves(name, value)
    return found


def _named_leaves(name: str, value: Any) -> list[tuple[str, Any]]:
    leaves, _ = pytree.tree_flatten_with_path(value)
    return [(name + _path_text(path), leaf) for path, leaf in leaves]


def _path_text(path: tuple[Any, ...]) -> str:
    return "".join(f"_{getattr(step, 'idx', getattr(step, 'key', step))}" for step in path)


def _checked_axes(
    names: list[tuple[str, Any]], wanted: DynamicAxes | None
) -> dict[str, dict[int, str]]:
    """Dynamic axes of every tensor input; axis 0 is the batch where nothing is said."""
    tensors = {name: value for name, value in names if isinstance(value, torch.Tensor)}
    if not tensors:
        raise CaptureError(
            "capture needs example tensors", ["capture(model, (torch.randn(2, 3, 224, 224),))"]
        )
    if wanted is None:
        return {name: {0: "batch"} if value.ndim else {} for name, value in tensors.items()}
    for name, axes in wanted.items():
        if name not in tensors:
            raise CaptureError(
                f"dynamic_axes names an input {name!r}; the inputs are {', '.join(tensors)}"
            )
        for axis in axes:
            if not 0 <= axis < tensors[name].ndim:
                raise CaptureError(
                    f"dynamic_axes: {name!r} has shape {tuple(tensors[name].shape)}, no axis {axis}"
                )
    return {name: dict(wanted.get(name, {})) for name in tensors}


def _widened(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    names: list[tuple[str, Any]],
    axes: dict[str, dict[int, str]],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Repeat examples of length 1 along their dynamic axes."""
    leaves, tree = pytree.tree_flatten((args, kwargs))
    for position, (name, value) in enumerate(names):
        for axis in axes.get(name, {}):
            if isinstance(value, torch.Tensor) and value.shape[axis] == 1:
                leaves[position] = leaves[position].repeat_interleave(2, axis)
    result: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_unflatten(leaves, tree)
    return result


def _dynamic_shapes(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    names: list[tuple[str, Any]],
    axes: dict[str, dict[int, str]],
    wanted: DynamicAxes | None,
) -> Any:
    """What torch.export wants; a batch nobody asked for may turn out fixed, a named axis not."""
    kind = Dim.AUTO if wanted is None else Dim.DYNAMIC
    leaves, tree = pytree.tree_flatten((args, kwargs))
    shapes = [
        dict.fromkeys(axes[name], kind) if isinstance(leaf, torch.Tensor) else None
        for leaf, (name, _) in zip(leaves, names, strict=True)
    ]
    positional, named = pytree.tree_unflatten(shapes, tree)
    return (*positional, *named.values()) if named else positional


def _check_dynamic(graph: Graph, wanted: DynamicAxes | None) -> None:
    if graph.symbols or wanted is not None:
        return
    first = graph.placeholders[0]
    raise CaptureError(
        f"tracing fixed the batch size: {first.target} has shape {tuple(first.meta['val'].shape)}",
        [
            "look for a batch size written as a number in forward (view(8, -1), torch.zeros(8, d))",
            'pass dynamic_axes={...} to say which axes vary, or {"name": {}} for none',
        ],
    )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode for the whole model; every module's own flag is restored."""
    flags = {module: module.training for module in model.modules()}
    for module in flags:
        module.training = False
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training


def _export(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any
) -> ExportedProgram:
    errors: list[Exception] = []
    with _evaluating(model), tapping(model):
        for strict in (False, True):
            try:
                return torch.export.export(
                    model, args, kwargs, dynamic_shapes=shapes, strict=strict
                )
            except Exception as error:
                errors.append(error)
    raise _explained(model, errors) from errors[0]


def _explained(model: nn.Module, errors: list[Exception]) -> CaptureError:
    here = {os.path.dirname(__file__), os.path.dirname(torch.__file__)}
    frames = [
        frame
        for frame in traceback.extract_tb(errors[0].__traceback__)
        if not any(frame.filename.startswith(folder + os.sep) for folder in here)
        and not frame.filename.startswith("<")
    ]
    line = frames[-1] if frames else None
    where = f"\n  at {line.filename}:{line.lineno}: {line.line}" if line else ""
    first, second = (f"{type(error).__name__}: {_head(error)}" for error in errors)
    return CaptureError(
        f"{type(model).__name__} cannot be captured.{where}\n"
        f"  non-strict tracing: {first}\n  strict tracing: {second}",
        [
            "a Python branch on tensor values cannot be traced: use torch.where or torch.cond",
            "a model that returns a cache object needs use_cache=False among its kwargs",
            "pass other example arguments, or dynamic_axes={...} if a fixed length is the matter",
            "capture the part of the model that is plain tensor code",
        ],
    )


def _head(error: Exception, limit: int = 600) -> str:
    text = str(error).strip()
    return text if len(text) <= limit else text[:limit] + " ..."
