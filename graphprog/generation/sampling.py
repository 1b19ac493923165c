"""Sampling of the next token from its logits, or the most probable one."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from graphprog.errors import ProgramError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; by default, the most probable one.

    Attributes:
        temperature: divides the logits; above 0.
        top_k: sample from this number of most probable tokens.
        top_p: sample from the most probable tokens that together have this probability, in (0, 1].
        seed: seed of the sampling, combined with the number of the row, so that samples do not
            depend on the batch; alone, it samples from the model's own distribution.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.temperature is not None and not self.temperature > 0:
            raise ProgramError(
                f"temperature={self.temperature} is not above 0",
                ["for greedy decoding, leave out temperature, top_k, top_p and seed"],
            )
        for name in ("top_k", "seed"):
            if not isinstance(getattr(self, name), int | None):
                raise ProgramError(f"{name}={getattr(self, name)!r} is not an integer")
        if self.top_k is not None and self.top_k < 1:
            raise ProgramError(f"top_k={self.top_k} leaves no token to choose")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ProgramError(f"top_p={self.top_p} is not in (0, 1]")

    @property
    def draws(self) -> bool:
        """Whether tokens are sampled."""
        set_ = (self.temperature, self.top_k, self.top_p, self.seed)
        return any(value is not None for value in set_)

    @cached_property
    def _processors(self) -> Any:
        library, found = _logits_process(), []
        if self.temperature is not None:
            found.append(library.TemperatureLogitsWarper(self.temperature))
        if self.top_k is not None:
            found.append(library.TopKLogitsWarper(self.top_k))
        if self.top_p is not None:
            found.append(library.TopPLogitsWarper(self.top_p))
        return library.LogitsProcessorList(found)

    def generators(self, rows: Sequence[int]) -> list[torch.Generator]:
        """Return a random generator for every row."""
        first = (self.seed or 0) * 1_000_003
        return [torch.Generator().manual_seed((first + row) % 2**63) for row in rows]

    def choose(
        self, ids: torch.Tensor, scores: torch.Tensor, generators: Sequence[torch.Generator]
    ) -> torch.Tensor:
        """Choose one token per row.

        Args:
            ids: tokens so far [B, S].
            scores: logits of the next one [B, V].
            generators: one per row.

        Returns:
            Ids [B].
        """
        if not self.draws:
            return scores.argmax(-1)
        shares = self._processors(ids, scores.double()).softmax(-1)
        drawn = [
            torch.multinomial(share, 1, generator=generator)
            for share, generator in zip(shares, generators, strict=True)
        ]
        return torch.cat(drawn)


def _logits_process() -> Any:
    """Import the module of logits processors.

    Raises:
        ProgramError: transformers is not installed.
    """
    try:
        return importlib.import_module("transformers.generation.logits_process")
    except ImportError as error:
        raise ProgramError(
            f"sampling needs the logits processors of transformers: {error}",
            ["pip install transformers"],
        ) from error
