"""Tracing a module in the fake mode of its input values."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental import _config as sizes_config
from torch.fx.experimental import symbolic_shapes
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from graphprog.errors import PassError
from graphprog.rewriting.batch_norm import Switch, take_switches


class _SizesAreFrozenError(RuntimeError):
    """Code would fix or bound a dynamic size; PyTorch 2.11 has no error of its own for this."""


_GuardError: type[RuntimeError] = getattr(
    symbolic_shapes, "_ShapeEnvGuardError", _SizesAreFrozenError
)


def fake_mode_of(value: torch.Tensor) -> FakeTensorMode:
    """Return the fake mode of a traced value."""
    assert isinstance(value, FakeTensor)
    return value.fake_mode


@contextmanager
def keeping_sizes(values: Iterable[Any]) -> Iterator[None]:
    """Raise if code would fix or bound a dynamic size by comparing it with a number.

    All graphs of one capture share what is known about their sizes, so it must not change.
    """
    with ExitStack() as stack:
        for value in values:
            if isinstance(value, FakeTensor) and value.fake_mode.shape_env is not None:
                stack.enter_context(_refusing(value.fake_mode.shape_env))
        yield


def _refuse(expression: Any, value: Any) -> None:
    raise _GuardError(f"Guard attempted while ShapeEnv guards are frozen: {expression} == {value}")


@contextmanager
def _refusing(sizes: Any, refused: bool = True) -> Iterator[None]:
    """Raise if code would fix or bound a dynamic size; ``refused=False`` allows it."""
    # PyTorch 2.11 has no such switch, but calls `_check_frozen` before it records a size
    name = "_error_on_new_guards" if hasattr(sizes, "_error_on_new_guards") else "_check_frozen"
    own = vars(sizes)
    before = {key: own.pop(key) for key in [name] if key in own}
    if name == "_error_on_new_guards":
        own[name] = refused
    elif refused:
        own[name] = _refuse
    try:
        yield
    finally:
        own.pop(name, None)
        own.update(before)


_SYMBOL = re.compile(r"\b[su]\d+\b")

_TALKATIVE = (
    "torch._subclasses.fake_tensor",
    "torch.fx.experimental.symbolic_shapes",
    "torch.export._trace",
)
"""Loggers that print every failed operation with its trace."""


@contextmanager
def silence() -> Iterator[None]:
    """Log nothing about operations that fail, inside the block."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        yield
    finally:
        for logger, was in zip(loggers, before, strict=True):
            logger.disabled = was


@contextmanager
def running(mode: FakeTensorMode) -> Iterator[None]:
    """Run operations on fake values without fixing or bounding any dynamic size.

    A kernel's questions about sizes are answered for the example, and the answers are not kept:
    whether the rest of a slice has one entry, for example, which determines strides and not
    shapes. An operation that does not run raises and logs nothing.
    """
    sizes: Any = mode.shape_env
    caching = mode.cache_enabled
    mode.cache_enabled = False  # its entries cost more than running the few operations here
    try:
        quiet = sizes.ignore_fresh_unbacked_symbols()  # of data-dependent counts
        lenient = _refusing(sizes, False)
        with mode, lenient, sizes.suppress_guards(), quiet, enable_python_dispatcher(), silence():
            yield
    finally:
        mode.cache_enabled = caching


class _Forgetting(TorchDispatchMode):
    """Allow kernels, but not the code that calls them, to compare a size with a number.

    Whether a batch is large determines which kernel runs; the answer is not kept, as in
    :func:`running`. Whether two sizes are equal determines whether the operation runs at all, so
    it must not be assumed.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: Any = mode.shape_env

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            with _refusing(self.sizes):
                return func(*args, **(kwargs or {}))
        except _GuardError as error:
            if len(set(_SYMBOL.findall(str(error)))) > 1:
                raise
        with _refusing(self.sizes, False), self.sizes.suppress_guards():
            return func(*args, **(kwargs or {}))


def trace(
    module: nn.Module, values: Sequence[Any], where: str
) -> tuple[fx.GraphModule, dict[str, torch.Tensor]]:
    """Trace a module in the fake mode of its inputs, with its tensors as further arguments.

    The traced graph returns the module's results, and those of the layers that switch between
    training and evaluation.
    """
    tensors: dict[str, torch.Tensor] = {**dict(module.named_parameters())}
    tensors |= dict(module.named_buffers())
    mode = fake_mode_of(next(value for value in values if isinstance(value, torch.Tensor)))

    def call(*flat: Any) -> Any:
        own = dict(zip(tensors, flat[len(values) :], strict=True))
        result = torch.func.functional_call(module, own, tuple(flat[: len(values)]))
        return result, {path: _fields(item) for path, item in take_switches(module).items()}

    with mode:
        fakes = [mode.from_tensor(tensor, static_shapes=True) for tensor in tensors.values()]
        try:
            # questions that only determine strides are answered without assumptions about sizes
            oblivious = sizes_config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
            with _Forgetting(mode), oblivious, silence():
                traced = make_fx(call, pre_dispatch=True, tracing_mode="real")(*values, *fakes)
        except Exception as error:
            shapes = ", ".join(str(tuple(getattr(value, "shape", ()))) for value in values)
            remedies = [
                "check its shapes against print(graph.interfaces())",
                "keep sizes dynamic: do not call int() on a size or compare it with a number",
            ]
            if len(values) > 1:
                remedies.append("pool first: the values read must have sizes known to be equal")
            if "DataDependent" in type(error).__name__:
                remedies = ["use torch.where instead of if: forward branches on tensor values"]
            raise PassError(
                f"{where}: {type(module).__name__} cannot run on a value of shape {shapes}: "
                f"{type(error).__name__}: {error}",
                remedies,
            ) from error
    return traced, tensors


def _fields(switch: Switch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    return switch.evaluating, switch.training, switch.updates
