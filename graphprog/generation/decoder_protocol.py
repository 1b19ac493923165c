"""What writes: anything that gives logits for new tokens and remembers the old ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch

from graphprog.analysis.roles import Roles
from graphprog.generation.decoder import Wording


@runtime_checkable
class Decoder(Protocol):
    """A model that is run token after token; see :func:`graphprog.with_kv_cache`.

    Attributes:
        roles: what its inputs are.
        wording: what is put around prompts, and how answers are read.
    """

    @property
    def roles(self) -> Roles:
        """What its inputs are."""

    @property
    def wording(self) -> Wording:
        """What is put around prompts, and how answers are read."""

    def advance(
        self, inputs: Mapping[str, torch.Tensor], memory: Any = None
    ) -> tuple[torch.Tensor, Any]:
        """Compute what is new.

        Args:
            inputs: of all tokens so far, by name.
            memory: what the call before returned; None at first.

        Returns:
            Logits [B, T, V] of at least the last tokens, and the new memory.
        """

    def select(self, memory: Any, rows: torch.Tensor) -> Any:
        """The memory of some rows, in that order; a row may be there several times."""
