"""Tables of replacements for ATen operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]


class Table(dict[Any, Function]):
    """Operation to a function that computes the same of operations that ONNX has."""

    def of(self, *operations: Any) -> Callable[[Function], Function]:
        """Decorate the function for some operations, whose arguments it takes."""

        def register(function: Function) -> Function:
            self.update(dict.fromkeys(operations, function))
            return function

        return register
