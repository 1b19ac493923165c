"""Capturing a PyTorch model as a graph."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from graphprog.analysis.aliases import with_structure
from graphprog.capture.examples import require_axes, require_values
from graphprog.capture.first_call import FirstCall
from graphprog.capture.fixed_axes import check_free
from graphprog.capture.lift import lift
from graphprog.capture.pt2_file.read import read_exported
from graphprog.capture.quiet_tracing import quiet_tracing
from graphprog.capture.taps import tapping
from graphprog.errors import CaptureError
from graphprog.ir.graph import Graph
from graphprog.ir.hints import checked_hints
from graphprog.utils.lazy import load
from graphprog.utils.torch_modes import plain_modes
from graphprog.utils.user_frames import user_line

DynamicAxes = Mapping[str, Mapping[int, str]]

_OPEN_SOURCE = "graphprog.sources.open_source:open_source"  # a layer above
_FILES = (".graph", ".pt2")
_WEIGHTS = (".safetensors", ".gguf")  # files that are names of models, for which a loader is needed


@plain_modes()
def capture(
    model: nn.Module | ExportedProgram | str | os.PathLike[str],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    dynamic_axes: DynamicAxes | None = None,
    *,
    tokenizer: Any = None,
    hints: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> Graph:
    """Capture a model as a Graph; its weights are shared, not copied.

    The model is traced by ``torch.export`` in eval mode, non-strict first and strict second, and
    is left exactly as it was. One that makes parameters, buffers or layers at its first call is
    called on the example, and has them afterwards. An ``fx.GraphModule`` is a model like any other.
    An ``ExportedProgram`` or ``.pt2`` file is taken as it is: it must have been exported in eval
    mode, and its export has already fixed ``args``, ``kwargs`` and ``dynamic_axes``. A ``.graph``
    file is one that :meth:`Graph.save` wrote. Any other text is the name of a model, such as
    ``timm:resnet18`` or ``package.module:factory``; see :func:`graphprog.sources.open_source`. Its
    library gives the example arguments, axes, hints and tokenizer; those given here come first.

    Args:
        model: what to capture.
        args: example positional arguments.
        kwargs: example keyword arguments; only those given here exist in the graph.
        dynamic_axes: for each input, the axes whose length may vary and their names,
            such as ``{"input_ids": {0: "batch", 1: "sequence"}}``. By default, axis 0 of every
            tensor is the batch. An example of length 1 on such an axis is repeated, because
            tracing would fix the length 1.
        tokenizer: the model's tokenizer, from transformers, for programs of text. It is kept, not
            copied.
        hints: what else is known about the model, such as ``{"mean": (0.485, 0.456, 0.406), "std":
            (0.229, 0.224, 0.225), "labels": names}``; see :attr:`Graph.hints`.
        trust: read a ``.pt2`` file as PyTorch does, which runs code that the file may hold: for
            files of your own. By default such a file is data: only tensors, lists, tuples and
            dictionaries of them, and operations that compute are read, and a result of a class
            becomes a dictionary.

    Raises:
        CaptureError: the model cannot be traced. The message has both tracing errors, the line of
            user code that stopped them, and what to try.
        FileError: the file cannot be read, or, without ``trust``, holds anything but data.
        ProgramError: a hint is unknown.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU()).eval()
        >>> small = gp.capture(model, (torch.zeros(2, 8),))
        >>> assert torch.equal(small(torch.ones(5, 8)), model(torch.ones(5, 8)))  # any batch size
    """
    known = checked_hints(hints)
    if isinstance(model, os.PathLike) and Path(model).suffix in _WEIGHTS:
        model = os.fspath(model)
    if isinstance(model, str) and not _is_file(model):
        source = load(_OPEN_SOURCE)(model)
        known = {**checked_hints(source.hints), **known}
        tokenizer = source.tokenizer if tokenizer is None else tokenizer
        dynamic_axes = source.dynamic_axes if dynamic_axes is None else dynamic_axes
        if not args and not kwargs:
            args, kwargs = source.example(model)
        model = source.model
    graph = _captured(model, args, kwargs, dynamic_axes, trust)
    return dataclasses.replace(graph, tokenizer=tokenizer, hints={**graph.hints, **known})


def _is_file(name: str) -> bool:
    """Whether a text is the path of a graph or an exported program, not the name of a model."""
    path = Path(name)
    return path.suffix in _FILES or (path.suffix not in _WEIGHTS and path.is_file())


def _refuse_inference_tensors(model: nn.Module) -> None:
    """Refuse weights through which nothing can be trained.

    Raises:
        CaptureError: a weight was made in inference mode; names it.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_inference():
            raise CaptureError(
                f"{name} was made under torch.inference_mode(), so that no program could be "
                "trained through it",
                ["make and load the model outside of torch.inference_mode()"],
            )


def _captured(
    model: nn.Module | ExportedProgram | str | os.PathLike[str],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    dynamic_axes: DynamicAxes | None,
    trust: bool,
) -> Graph:
    if isinstance(model, str | os.PathLike) and Path(model).suffix == ".graph":
        return _from_graph_file(model, dynamic_axes)
    if isinstance(model, str | os.PathLike):
        return _from_exported(read_exported(model, trust), Path(model).stem, dynamic_axes)
    if isinstance(model, ExportedProgram):
        return _from_exported(model, "exported", dynamic_axes)
    if not isinstance(model, nn.Module):
        raise CaptureError(
            "capture takes an nn.Module, an ExportedProgram, the path of a .pt2 or .graph file, or "
            f"the name of a model, not {type(model).__name__}"
        )
    _refuse_inference_tensors(model)
    args, kwargs = tuple(args), dict(kwargs or {})
    names = _input_names(model, args, kwargs)
    require_values(model, names)
    axes = _checked_axes(names, dynamic_axes)
    args, kwargs = _widened(args, kwargs, names, axes)
    shapes = _dynamic_shapes(model, args, kwargs, names, axes, dynamic_axes)
    exported = _export(model, args, kwargs, shapes)
    graph = lift(exported, type(model).__name__, axes)
    _check_dynamic(graph, dynamic_axes)
    check_free(graph)
    return with_structure(graph)


def _from_graph_file(path: str | os.PathLike[str], axes: DynamicAxes | None) -> Graph:
    if axes is not None:
        raise CaptureError("a saved graph takes no dynamic_axes: its capture fixed them")
    return Graph.load(path)


def _from_exported(program: ExportedProgram, name: str, axes: DynamicAxes | None) -> Graph:
    if axes is not None:
        raise CaptureError("an exported program takes no dynamic_axes: its export fixed them")
    return with_structure(lift(program, name, {}))


def _input_names(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[str, Any]]:
    """Return name and value of every leaf of a call's arguments, in pytree order."""
    signature = inspect.signature(model.forward)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise CaptureError(
            f"{type(model).__name__}.forward{signature} cannot be called with the example: {error}",
            ["pass the arguments of one call of the model: gp.capture(model, args, kwargs)"],
        ) from error
    slots: list[str] = []
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            slots += [f"{name}_{number}" for number in range(len(args) - len(slots))]
        elif parameter.kind not in (
            inspect.Parameter.KEYWORD_ONLY,
            inspect.Parameter.VAR_KEYWORD,
        ):
            slots.append(name)
    found: list[tuple[str, Any]] = []
    for name, value in zip(slots, args, strict=False):  # the rest is passed by keyword
        found += _named_leaves(name, value)
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
    """Return the dynamic axes of every tensor input; by default, axis 0 is the batch."""
    tensors = {name: value for name, value in names if isinstance(value, torch.Tensor)}
    if not tensors:
        raise CaptureError(
            "capture needs example tensors", ["gp.capture(model, (torch.randn(2, 3, 224, 224),))"]
        )
    if wanted is None:
        return {name: {0: "batch"} if value.ndim else {} for name, value in tensors.items()}
    require_axes(wanted, next(iter(tensors)))
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
    """Repeat examples of length 1 along their dynamic axes, and copy a tensor given twice."""
    leaves, tree = pytree.tree_flatten((args, kwargs))
    seen: set[int] = set()
    for position, (name, value) in enumerate(names):
        if isinstance(value, torch.Tensor) and id(value) in seen:
            leaves[position] = value.clone()  # tracing would merge inputs that are the same tensor
        seen.add(id(value))
        for axis in axes.get(name, {}):
            if isinstance(value, torch.Tensor) and value.shape[axis] == 1:
                leaves[position] = leaves[position].repeat_interleave(2, axis)
    result: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_unflatten(leaves, tree)
    return result


def _dynamic_shapes(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    names: list[tuple[str, Any]],
    axes: dict[str, dict[int, str]],
    wanted: DynamicAxes | None,
) -> Any:
    """Return dynamic shapes for torch.export; only a batch axis by default may become fixed."""
    kind = Dim.AUTO if wanted is None else Dim.DYNAMIC
    leaves, tree = pytree.tree_flatten((args, kwargs))
    shapes = [
        dict.fromkeys(axes[name], kind) if isinstance(leaf, torch.Tensor) else None
        for leaf, (name, _) in zip(leaves, names, strict=True)
    ]
    positional, named = pytree.tree_unflatten(shapes, tree)
    signature = inspect.signature(model.forward)
    bound = signature.bind(*positional, **named)
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD and parameter.name in bound.arguments:
            unnamed = ", ".join(bound.arguments[parameter.name])
            raise CaptureError(
                f"{type(model).__name__}.forward{signature} has no name for {unnamed}, and tracing "
                "cannot vary the shape of an unnamed argument",
                ["wrap the model in a module whose forward names its arguments"],
            )
    return dict(bound.arguments)


def _check_dynamic(graph: Graph, wanted: DynamicAxes | None) -> None:
    if graph.symbols or wanted is not None:
        return
    first = graph.placeholders[0]
    raise CaptureError(
        f"tracing fixed the batch size: {first.target} has shape {tuple(first.meta['val'].shape)}",
        [
            "look for a batch size written as a number in forward (view(8, -1), torch.zeros(8, d))",
            'pass dynamic_axes={"name": {0: "batch"}} for axes that vary, {"name": {}} for none',
        ],
    )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Set the whole model to eval mode, and restore the flag of every module afterwards."""
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
    def traced(strict: bool) -> ExportedProgram | Exception:
        try:
            with tapping(model), quiet_tracing():
                return torch.export.export(
                    model, args, kwargs, dynamic_shapes=shapes, strict=strict
                )
        except Exception as error:
            return error

    with _evaluating(model):
        first_call = FirstCall(model)
        with first_call.noticing():
            loose = traced(strict=False)
        if first_call.made:
            first_call.make(args, kwargs)
            loose = traced(strict=False)
        if isinstance(loose, ExportedProgram):
            return loose
        strict = traced(strict=True)
    if isinstance(strict, ExportedProgram):
        return strict
    raise _explained(model, [loose, strict]) from loose


def _explained(model: nn.Module, errors: list[Exception]) -> CaptureError:
    first, second = (f"{type(error).__name__}: {_head(error)}" for error in errors)
    return CaptureError(
        f"{type(model).__name__} cannot be captured.{user_line(errors)}\n"
        f"  non-strict tracing: {first}\n  strict tracing: {second}",
        [
            "use torch.where: a Python branch on tensor values cannot be traced",
            'pass kwargs={"use_cache": False} to a model that returns a cache object',
            "pass other example arguments, or dynamic_axes={...} if a fixed length is the cause",
            "capture only the part of the model that is plain tensor code",
        ],
    )


def _head(error: Exception, limit: int = 600) -> str:
    text = str(error).strip().split("\n\n")[0]  # what follows is about torch
    return text if len(text) <= limit else text[:limit] + " ..."
