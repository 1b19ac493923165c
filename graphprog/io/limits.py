"""Limits of what a program file may ask for, checked before anything is compiled from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from graphprog.compiler.program import Program
from graphprog.errors import FileError
from graphprog.spec.registry import Spec

_FREE = frozenset({"seed"})
"""Fields whose numbers size nothing."""

_PLACES = frozenset({"at", "name", "until", "queries"})
"""Fields that name interfaces or parts; other texts are words of a prompt."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a program file; one that asks for more is refused before it costs time or memory.

    Attributes:
        manipulations: number of manipulations.
        names: characters of an interface's key or of a part's name.
        numbers: largest number in the program, such as a length, unless the file stores as many
            numbers as that.
        memory: bytes that the parts may allocate together while they are built, besides eight times
            those of the file's own tensors.

    Example:
        >>> from graphprog.io.limits import Limits
        >>> gp.save(task, "frame.safetensors")
        >>> again = gp.load("frame.safetensors", graph, limits=Limits(manipulations=5_000))
    """

    manipulations: int = 256
    names: int = 1_000
    numbers: int = 2**20
    memory: int = 2**28

    def check(self, program: Program, tensors: Mapping[str, torch.Tensor]) -> None:
        """Check a program that was read with its tensors.

        Raises:
            FileError: it asks for more; says what, where and how much.
        """
        count = len(program.manipulations)
        if count > self.manipulations:
            raise _too_much("manipulations", count, "manipulations", self.manipulations)
        stored = sum(tensor.numel() for tensor in tensors.values())
        for place, value in _leaves(program, "program"):
            field = place.rpartition(".")[2]
            if isinstance(value, str) and field in _PLACES and len(value) > self.names:
                raise _too_much(f"characters of {place}", len(value), "names", self.names)
            most = 0 if type(value) is not int or field in _FREE else abs(value)
            if most > max(self.numbers, stored):
                raise FileError(
                    f"{place} is {value}, more than the {stored} numbers that the file stores and "
                    f"the limit of {self.numbers}",
                    ["get the file again", f"raise the limit: Limits(numbers={most})"],
                )

    def bytes_of(self, tensors: Mapping[str, torch.Tensor]) -> int:
        """Return the bytes that the parts may allocate together."""
        return self.memory + 8 * sum(tensor.nbytes for tensor in tensors.values())


def _too_much(what: str, found: int, option: str, limit: int) -> FileError:
    return FileError(
        f"the program has {found} {what}, more than the limit of {limit}",
        ["get the file from someone you trust", f"raise the limit: Limits({option}={found})"],
    )


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Spec):
        for field in dataclasses.fields(value):
            yield from _leaves(getattr(value, field.name), f"{place}.{field.name}")
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _leaves(item, place)
    else:
        yield place, value
