"""A bound on what the modules of a program allocate, for programs of files."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar, Protocol

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from graphprog.errors import ProgramError
from graphprog.values.context import BuildContext

_BYTES = 4
_SIZED = frozenset(
    getattr(owner, name)
    for owner, names in (
        (torch, "empty zeros ones full rand randn empty_strided"),
        (torch.Tensor, "new_empty new_zeros new_ones new_full repeat"),
    )
    for name in names.split()
)
"""Functions whose first argument is a size, that of the result or a factor of it."""

_COUNTED = frozenset({torch.arange, torch.eye, torch.randperm, torch.linspace})


class Buildable(Protocol):
    """A part of a program."""

    kind: ClassVar[str]

    def build(self, context: BuildContext) -> nn.Module:
        """Make its module."""


class Budget(TorchFunctionMode):
    """Bytes that the parts of a program may allocate together while they are built.

    Tensors whose size is given are refused before they are made.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.left = size
        self.kind = ""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function of PyTorch, and count what it makes."""
        given = dict(kwargs or {})
        if function in _SIZED or function in _COUNTED:
            numbers = 0 if _is_fake(args[:1]) else _least_numbers(function, args, given)
            self.left -= _BYTES * numbers
            self._require(numbers, self.left >= 0)
        result = function(*args, **given)
        for value in pytree.tree_leaves(result):
            if isinstance(value, torch.Tensor) and not (value.is_meta or _is_fake([value])):
                self._require(value.numel(), _BYTES * value.numel() <= self.size)
        return result

    def _require(self, numbers: int, fits: bool) -> None:
        if not fits:
            raise ProgramError(
                f"{self.kind} asks for a tensor of {numbers} numbers, more than the file stores",
                ["get the file again", "pass limits=Limits(memory=...) with more bytes"],
            )


_BUDGET: ContextVar[Budget | None] = ContextVar("budget", default=None)


@contextlib.contextmanager
def allocating_at_most(size: int) -> Iterator[None]:
    """Bound the bytes that parts of programs allocate while they are built in the block."""
    token = _BUDGET.set(Budget(size))
    try:
        yield
    finally:
        _BUDGET.reset(token)


def build(part: Buildable, context: BuildContext) -> nn.Module:
    """Make the module of a part, within the budget if there is one.

    Raises:
        ProgramError: its tensors would be larger; or as the part's own ``build``.
    """
    budget = _BUDGET.get()
    if budget is None:
        return part.build(context)
    budget.kind = part.kind
    with budget:
        return part.build(context)


def _is_fake(values: Sequence[Any]) -> bool:
    return any(isinstance(value, FakeTensor) for value in values)


def _least_numbers(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> int:
    """Return how many numbers the result of a function will have at least."""
    leaves = pytree.tree_leaves((args, kwargs.get("size")))
    whole = [item for item in leaves if type(item) is int]
    if function is torch.empty_strided:
        whole = [item for item in pytree.tree_leaves(args[:1]) if type(item) is int]
    if function in (torch.full, torch.Tensor.new_full):
        whole = [item for item in pytree.tree_leaves(args[:-1]) if type(item) is int]
    if function in _COUNTED:
        return max(map(abs, whole), default=0) if function is not torch.arange else _steps(args)
    return math.prod(whole)


def _steps(args: tuple[Any, ...]) -> int:
    """Return the number of entries of an arange."""
    if not args or not all(type(item) is int for item in args):
        return 0
    return len(range(*args)) if len(args) < 3 or args[2] else 0
