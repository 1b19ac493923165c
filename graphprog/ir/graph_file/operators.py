"""Operations that a graph file may name: those that compute, and nothing else."""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable
from typing import Any

import torch

from graphprog.errors import FileError

_NAMESPACES = frozenset({"aten", "prims", "torchvision", "quantized_decomposed"})
_DENIED = re.compile(r"aten::(from_file|_print|set_?|data|set_data|record_stream|_test_\w+)")
_NUMBERS: dict[str, Callable[..., Any]] = {
    f"{module.__name__.lstrip('_')}.{name}": getattr(module, name)
    for module, names in {
        operator: "add sub mul floordiv truediv mod neg eq ne lt le gt ge and_ or_ getitem",
        math: "ceil floor trunc",
        torch: "sym_float sym_int sym_max sym_min sym_not sym_ite",
    }.items()
    for name in names.split()
}
_NAMES = {function: name for name, function in _NUMBERS.items()}


@functools.cache
def _dispatched() -> frozenset[str]:
    """Return the operators of PyTorch's dispatcher; its script interpreter also opens files."""
    return frozenset(torch._C._dispatch_get_all_op_names())


def operator_text(target: Any) -> str:
    """Return the name under which an operation is stored.

    Raises:
        FileError: it is not allowed in a file.
    """
    if isinstance(target, torch._ops.OpOverload):
        text = f"{target._schema.name}.{target._overloadname}"
        operator_of(text)
        return text
    if callable(target) and target in _NAMES:
        return _NAMES[target]
    raise FileError(
        f"the operation {target} cannot be stored: only those of PyTorch and torchvision are",
        ["capture a model without it"],
    )


def operator_of(text: Any, in_place: bool = False) -> Callable[..., Any]:
    """Return the operation with a name.

    Args:
        text: such as ``aten::relu.default``, or ``operator.add`` for Python's own on numbers.
        in_place: allow operations that write to their arguments, as in graphs of ``torch.export``.

    Raises:
        FileError: there is none, or it does more than compute.
    """
    if not isinstance(text, str):
        raise FileError(f"{text!r:.80} does not name an operation")
    if text in _NUMBERS:
        return _NUMBERS[text]
    name, _, overload = text.partition(".")
    namespace, _, short = name.partition("::")
    if namespace not in _NAMESPACES or _DENIED.fullmatch(name) or not short.isidentifier():
        raise FileError(
            f"the operation {text!r:.80} may not be in a graph file",
            ["get the file from someone you trust: this one was not written by graph.save"],
        )
    full = name if overload == "default" else f"{name}.{overload}"
    packet = getattr(getattr(torch.ops, namespace), short, None) if full in _dispatched() else None
    found = getattr(packet, overload, None)
    if not isinstance(found, torch._ops.OpOverload):
        remedy = "import torchvision first" if namespace == "torchvision" else "capture it again"
        raise FileError(
            f"the operation {text!r:.80} does not exist in PyTorch {torch.__version__}", [remedy]
        )
    if found._schema.is_mutable and not in_place:
        raise FileError(f"the operation {text!r:.80} changes its arguments, as in no graph")
    return found


def is_number_function(target: Any) -> bool:
    """Whether an operation is one of Python's own, on sizes and numbers."""
    return target in _NAMES
