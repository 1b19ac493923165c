"""A shortcut in the search for what the library's rules of optimization replace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from onnxscript.rewriter._basics import MatchResult
from onnxscript.rewriter._matcher import SimplePatternMatcher


@contextlib.contextmanager
def first_operation_decides() -> Iterator[None]:
    """Try a rule with several results only on nodes that its first one may be.

    The library lists all nodes of the graph for each node before it compares the first: its time
    grows with the square of the nodes. What it finds stays the same.
    """
    search = SimplePatternMatcher.match

    def match(
        self: Any, model: Any, graph: Any, node: Any, *args: Any, **options: Any
    ) -> MatchResult:
        if not self.pattern.has_single_output_node:
            first = self.pattern.output_nodes[0].op_identifier()
            if first not in (None, node.op_identifier()):
                return MatchResult().fail("another operation")
        return search(self, model, graph, node, *args, **options)

    SimplePatternMatcher.match = match  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        SimplePatternMatcher.match = search  # type: ignore[method-assign]
