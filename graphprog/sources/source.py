"""A model with what its library knows of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from graphprog.errors import CaptureError

Axes = Mapping[str, Mapping[int, str]]


@dataclasses.dataclass(frozen=True)
class Source:
    """A model, and what :func:`graphprog.capture` needs to know of it.

    Attributes:
        model: the model.
        args: positional arguments of one call.
        kwargs: keyword arguments of that call.
        dynamic_axes: axes that vary, as for :func:`graphprog.capture`.
        hints: mean, deviation, labels and so on; see :attr:`graphprog.Graph.hints`.
        tokenizer: tokenizer of the model, if it reads text.
        processor: the library's own preprocessing, if it has one.

    Example:
        >>> source = gp.sources.Source(nn.Linear(4, 2).eval(), (torch.zeros(2, 4),))
        >>> graph = gp.capture(source.model, source.args)
    """

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dynamic_axes: Axes | None = None
    hints: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tokenizer: Any = None
    processor: Any = None

    def example(self, name: str) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Return the arguments of one call.

        Args:
            name: name of the model, for the message.

        Raises:
            CaptureError: the source has none.
        """
        if not self.args and not self.kwargs:
            raise CaptureError(
                f"{name} has no example of its inputs",
                [
                    "return (model, (example,)) from the factory",
                    f"gp.capture({name!r}, (example,))",
                ],
            )
        return self.args, self.kwargs
