"""Side effects of a program's modules, which happen when they are traced and never again."""

from __future__ import annotations

import contextlib
import inspect
import io
import random
import sys
import warnings
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

_PLAIN = (int, float, complex, str, bytes, bool, type(None))


@contextlib.contextmanager
def warning_of_side_effects(module: nn.Module, where: str) -> Iterator[None]:
    """Warn if code in the block, which traces a module, does more than to compute its results.

    Noticed are attributes of user modules, variables that their ``forward`` reads from outside,
    output that is printed, and numbers that Python or NumPy draw.

    Args:
        module: the module that is traced.
        where: key of the interface, for the message.
    """
    parts = [(path, part) for path, part in module.named_modules() if _is_users(part)]
    if not parts:
        yield
        return
    before = _states(parts)
    console = _Echo(sys.stdout)
    with contextlib.redirect_stdout(console):
        yield
    after = _states(parts)
    found = [name for name, state in after.items() if before.get(name) != state]
    if console.used:
        found.append("prints")
    if found:
        warnings.warn(
            f"{where}: {type(module).__name__}.forward does more than compute its result "
            f"({', '.join(found)}). This happened once, while the module was traced, and does not "
            "happen when the task runs. To record values, call gp.record(task, inputs, at=[...])",
            stacklevel=2,
        )


def _is_users(part: nn.Module) -> bool:
    return not type(part).__module__.startswith(("graphprog.", "torch."))


class _Echo(io.TextIOBase):
    """Passes text on, and keeps whether there was any."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.used = False

    def write(self, text: str) -> int:
        self.used = True
        return int(self.target.write(text))


def _states(parts: Collection[tuple[str, nn.Module]]) -> dict[str, Any]:
    """Return comparable states of all that side effects may change, by what a change is called."""
    states: dict[str, Any] = {
        "draws random numbers of Python": hash(random.getstate()),
        "draws random numbers of NumPy": hash(np.random.get_state()[1].tobytes()),  # type: ignore[index]
    }
    for path, part in parts:
        own = {name: value for name, value in vars(part).items() if not name.startswith("_")}
        for name, value in own.items():
            states[f"sets {'.'.join(filter(None, ('self', path, name)))}"] = _state(value)
        outer = inspect.getclosurevars(type(part).forward)
        for name, value in {**outer.globals, **outer.nonlocals}.items():
            states[f"changes {name}"] = _state(value)
    return states


def _state(value: Any) -> Any:
    """Return what differs once a value is another one, or a tensor or container was written to."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, torch.Tensor):
        return id(value), 0 if value.is_inference() else value._version
    if isinstance(value, dict):
        return id(value), tuple((id(key), id(item)) for key, item in value.items())
    if isinstance(value, Collection):
        return id(value), len(value)
    return id(value)
