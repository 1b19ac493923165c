"""Code that computes packed weights where they are read, and recomputes them for gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import fx, nn
from torch.multiprocessing.reductions import StorageWeakRef

from graphprog.ir.memory.packed import PackedWeight, held_at

_aten = torch.ops.aten
_PICKS = {_aten.embedding.default, _aten.index_select.default, _aten.index.Tensor}

_TRANSPOSES = {_aten.t.default, _aten.transpose.int, _aten.permute.default, _aten.numpy_T.default}

_Unpacked = dict[int, tuple[StorageWeakRef, PackedWeight]]
_UNPACKED: ContextVar[_Unpacked | None] = ContextVar("unpacked", default=None)
"""Weights computed so far in a run that may need gradients, by storage."""


def write_unpacking(code: fx.Graph, weights: nn.Module, remembered: bool) -> None:
    """Compute every packed weight anew before each operation that reads it, in place.

    Where an operation reads some entries of axis 0, only these are computed.

    Args:
        code: the operations.
        weights: the tensors that they read.
        remembered: let :func:`recomputing` find what was computed; code for export must not.
    """
    for node in list(code.find_nodes(op="get_attr")):
        held = held_at(weights, str(node.target))
        if not isinstance(held, PackedWeight):
            continue
        _transpose_late(code, node)
        for user in list(node.users):
            with code.inserting_before(user):
                _write(code, node, held, user, remembered)
        code.erase_node(node)


def _transpose_late(code: fx.Graph, node: fx.Node) -> None:
    """Transpose a weight before each operation that reads it so: none lives longer than that."""
    for view in list(node.users):
        if view.target not in _TRANSPOSES:
            continue
        for user in list(view.users):
            with code.inserting_before(user):
                user.replace_input_with(view, code.node_copy(view, lambda old: old))
        code.erase_node(view)


def _write(
    code: fx.Graph, node: fx.Node, held: PackedWeight, user: fx.Node, remembered: bool
) -> None:
    values, scale = (
        code.create_node("get_attr", f"{node.target}.{name}") for name in ("values", "scale")
    )

    def call(target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        return code.call_function(target, args, kwargs)

    pick = _pick(user, node, held, call)
    if pick is not None:
        user.replace_all_uses_with(held.write_rows(call, values, scale, pick))
        code.erase_node(user)
        return
    whole = held.write(call, values, scale)
    if remembered:
        whole = call(_remember, whole, code.create_node("get_attr", str(node.target)))
    user.replace_input_with(node, whole)


def _pick(
    user: fx.Node, node: fx.Node, held: PackedWeight, call: Callable[..., fx.Node]
) -> Callable[[Any], fx.Node] | None:
    """Return a function that picks the entries of axis 0 which a user reads, if it reads some."""
    if user.target not in _PICKS or user.args[0] is not node or held.axis or len(held.shape) != 2:
        return None
    if user.target is _aten.embedding.default:
        index = user.args[1]
    elif user.target is _aten.index_select.default and user.args[1] in (0, -2):
        index = user.args[2]
    elif user.target is _aten.index.Tensor and isinstance(user.args[1], list | tuple):
        if len(user.args[1]) != 1:
            return None
        index = user.args[1][0]
    else:
        return None
    if user.target is _aten.index_select.default:
        return lambda one: call(_aten.index_select.default, one, 0, index)
    return lambda one: call(_aten.index.Tensor, one, [index])


def _remember(weight: torch.Tensor, held: PackedWeight) -> torch.Tensor:
    """Let gradients recompute a weight instead of keeping it; returns it."""
    unpacked = _UNPACKED.get()
    if unpacked is not None:
        reference = StorageWeakRef(weight.untyped_storage())
        unpacked[reference.cdata] = (reference, held)
    return weight


@contextmanager
def recomputing() -> Iterator[None]:
    """Keep no computed weight for gradients inside the block: they are computed again."""
    unpacked: _Unpacked = {}
    token = _UNPACKED.set(unpacked)

    def pack(value: torch.Tensor) -> Any:
        try:
            found = unpacked.get(value.untyped_storage()._cdata)
        except (NotImplementedError, RuntimeError):  # a wrapper of a transform has no storage
            return value
        if found is None or value.requires_grad:
            return value
        return found[1], tuple(value.shape), value.stride(), value.storage_offset()

    def unpack(kept: Any) -> torch.Tensor:
        if isinstance(kept, torch.Tensor):
            return kept
        held, *place = kept
        with torch.no_grad(), torch.autocast(held.values.device.type, enabled=False):
            found: torch.Tensor = held.unpack().as_strided(*place)
            return found

    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield
    finally:
        _UNPACKED.reset(token)
