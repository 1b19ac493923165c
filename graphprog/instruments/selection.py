"""Which positions of a value are read, and how they are summarized."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import uuid
from collections.abc import Callable, Sequence
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch

from graphprog.analysis.token_inputs import TokenInputs
from graphprog.errors import DataError, ProgramError
from graphprog.ir.graph import Graph

Positions = int | slice | Sequence[int] | str | torch.Tensor | None
Reduce = str | Callable[[torch.Tensor], torch.Tensor] | None
_TOP = re.compile(r"top-([1-9]\d*)")


@dataclasses.dataclass(frozen=True)
class Selection:
    """Positions to read, and the summary to take of them.

    Attributes:
        positions: an index, a slice, indices, ``"last"`` (of the tokens that are there),
            ``"tokens"`` (those that are there), or a mask [B, S]; None for all.
        reduce: ``"mean"`` over positions, ``"norm"`` of the features, ``"top-5"`` (the features
            largest in magnitude), or a function of the value; None for the value itself.
    """

    positions: Positions = None
    reduce: Reduce = None

    def __post_init__(self) -> None:
        known = self.reduce in (None, "mean", "norm") or callable(self.reduce)
        if not known and not _TOP.fullmatch(str(self.reduce)):
            raise ProgramError(
                f'reduce must be "mean", "norm", "top-5" or a function, not {self.reduce!r}'
            )
        if isinstance(self.positions, str) and self.positions not in ("last", "tokens"):
            raise ProgramError(
                f'positions must be "last", "tokens", indices, a slice or a mask, '
                f"not {self.positions!r}"
            )

    @property
    def text(self) -> str:
        """The selection as text, which identifies it in a recording."""
        positions, reduce = repr(self.positions), repr(self.reduce)
        if isinstance(self.positions, torch.Tensor):
            held = self.positions.cpu().contiguous().numpy().tobytes()
            shape = list(self.positions.shape)
            positions = f"mask {shape} {hashlib.sha256(held).hexdigest()}"
        if callable(self.reduce):
            reduce = _function_text(self.reduce)
        return f"positions={positions}, reduce={reduce}"

    def mask_input(self, graph: Graph) -> str | None:
        """Return the name of the input that says which tokens are there, if it is needed.

        Raises:
            ProgramError: the graph reads no token ids.
        """
        if not isinstance(self.positions, str):
            return None
        try:
            return TokenInputs.of(graph).mask or None
        except ProgramError as error:
            raise ProgramError(
                f"positions={self.positions!r} are those of tokens, and {graph.name} reads no ids",
                ["positions=-1, indices, a slice, or a mask", "positions=None, for all"],
            ) from error

    def apply(
        self, name: str, value: torch.Tensor, axis: int | None, present: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Return the selected values by name.

        Args:
            name: the interface.
            value: its value, [B, ...].
            axis: axis of the positions; None if the value has none.
            present: [B, S], 1 where a token is; None if all are.

        Raises:
            DataError: a position is beyond the length, or the value has no positions.
        """
        taken, weights = self._taken(name, value, axis, present)
        if self.reduce == "mean":
            text = self.positions if isinstance(self.positions, str) else ""
            single = isinstance(self.positions, int) or text == "last"
            return {name: taken if single else _mean(name, taken, axis, weights)}
        if weights is not None:  # rows of the positions that are there, over all examples
            taken = taken.movedim(_axis(name, axis), 1)[weights]
        if self.reduce is None:
            return {name: taken}
        if self.reduce == "norm":
            return {name: torch.linalg.vector_norm(taken, dim=-1)}
        if callable(self.reduce):
            return {name: self.reduce(taken)}
        count = int(self.reduce.removeprefix("top-"))
        if count > taken.shape[-1]:
            raise DataError(f"{name!r} has {taken.shape[-1]} features, fewer than {count}")
        indices = taken.abs().topk(count, dim=-1).indices
        return {name: taken.gather(-1, indices), f"{name}.indices": indices}

    def _taken(
        self, name: str, value: torch.Tensor, axis: int | None, present: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the value at the positions, and a mask where it still has others."""
        if self.positions is None:
            return value, None
        at = _axis(name, axis)
        length = value.shape[at]
        if isinstance(self.positions, torch.Tensor):
            return value, _checked_mask(name, self.positions, value, at)
        if isinstance(self.positions, str):
            present = torch.ones(len(value), length) if present is None else present
            mask = _checked_mask(name, present.bool(), value, at)
            if self.positions == "tokens":
                return value, mask
            numbers = torch.arange(length, device=value.device)
            last = torch.where(mask, numbers, -1).amax(1).clamp(min=0)
            return value.movedim(at, 1)[torch.arange(len(value), device=value.device), last], None
        if isinstance(self.positions, slice):
            chosen = list(range(length))[self.positions]
        else:
            chosen = [self.positions] if isinstance(self.positions, int) else [*self.positions]
        wrong = [one for one in chosen if not -length <= one < length]
        if wrong or not chosen:
            raise DataError(
                f"{name!r} has {length} positions; there is no position {wrong or self.positions}",
                ["count from 0, or from the end with negative numbers"],
            )
        index = torch.tensor([one % length for one in chosen], device=value.device)
        taken = value.index_select(at, index)
        return (taken.select(at, 0) if isinstance(self.positions, int) else taken), None


def _function_text(function: Callable[..., Any]) -> str:
    """Return what identifies a function in other processes, too.

    One that depends on more than itself and modules is equal to none, not even to itself.
    """
    if isinstance(function, FunctionType) and not function.__closure__:
        code, known = function.__code__, function.__globals__
        used = [known[name] for name in code.co_names if name in known]
        if all(isinstance(one, ModuleType) for one in used):
            parts = (code.co_code, code.co_names, code.co_consts, function.__defaults__)
            return f"{code.co_qualname} {hashlib.sha256(repr(parts).encode()).hexdigest()}"
    if isinstance(function, BuiltinFunctionType):
        return f"{function.__module__}.{function.__qualname__}"
    return f"{function!r:.80} {uuid.uuid4().hex}"


def _axis(name: str, axis: int | None) -> int:
    if axis is None:
        raise DataError(
            f"the value at {name!r} has no axis of positions, as [B, S, d] has",
            ["positions=None"],
        )
    return axis


def _checked_mask(name: str, mask: torch.Tensor, value: torch.Tensor, axis: int) -> torch.Tensor:
    expected = (len(value), value.shape[axis])
    if mask.shape != expected or mask.dtype != torch.bool:
        raise DataError(
            f"the mask of positions at {name!r} is {mask.dtype} {list(mask.shape)}; "
            f"bool {list(expected)} is needed"
        )
    return mask.to(value.device)


def _mean(
    name: str, value: torch.Tensor, axis: int | None, weights: torch.Tensor | None
) -> torch.Tensor:
    if weights is not None:
        moved = value.movedim(_axis(name, axis), 1)
        share = weights.to(value.dtype)
        counts = share.sum(1).clamp(min=1).reshape(-1, *(1,) * (moved.ndim - 2))
        return torch.einsum("bs...,bs->b...", moved, share) / counts
    if axis is not None and value.ndim > axis + 1:
        return value.mean(axis)
    return value.flatten(2).mean(2) if value.ndim > 2 else value  # channels first: [B, C, H, W]
