"""Passes: graph in, graph out, with a contract."""

from __future__ import annotations

import dataclasses
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ClassVar

from graphprog.errors import GraphprogError, PassError
from graphprog.ir.graph import Graph, Step
from graphprog.ir.memory.packed import packed_weights
from graphprog.ir.symbols import in_letters
from graphprog.rewriting.fake_tracing import keeping_sizes
from graphprog.spec.registry import Spec

Watcher = Callable[["Pass", Graph, Graph], None]
"""Called with a pass that has run, its input graph and its result."""

_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Call a function with every pass that runs inside the block, its input and its result.

    An exception of the function counts as one of the pass: tests verify every pass this way.
    """
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


@dataclasses.dataclass(frozen=True)
class Pass(Spec):
    """A rewriting of graphs; subclasses are frozen dataclasses whose fields are the options.

    Calling a pass checks :meth:`requires`, runs :meth:`run`, checks :meth:`ensures` and adds an
    entry to the graph's history. The canonical text shows whether anything changed.

    Example:
        >>> smaller = gp.passes.DropDeadCode()(graph)
        >>> assert isinstance(gp.passes.DropDeadCode(), gp.passes.Pass)
        >>> smaller.history[-1].text
        'drop-dead-code'
    """

    after: ClassVar[tuple[str, ...]] = ()
    """Kinds of passes that come earlier in a pipeline."""

    def requires(self, graph: Graph) -> None:
        """Check that this pass can run on the graph; raise otherwise."""

    @abstractmethod
    def run(self, graph: Graph) -> Graph:
        """Return the rewritten graph; never change the given one."""

    def ensures(self, before: Graph, after: Graph) -> None:
        """Check that the result keeps the promises of this pass; raise otherwise."""

    def __call__(self, graph: Graph) -> Graph:
        """Run the pass with its checks.

        Raises:
            PassError: the pass failed; names the pass and keeps the cause.
        """
        start = time.perf_counter()
        try:
            self.requires(graph)
            with keeping_sizes(node.meta.get("val") for node in graph.placeholders):
                result = self.run(graph)
            self.ensures(graph, result)
            if (watcher := _WATCHER.get()) is not None:
                watcher(self, graph, result)
        except GraphprogError as error:
            error.reword(lambda text: in_letters(text, graph.symbols))
            raise
        except Exception as error:
            raise PassError(
                f"pass {self} failed on {graph.name}: {type(error).__name__}: {error}",
                ["this is a defect of the pass: report it with graph.text"],
            ) from error
        changed = result is not graph and (result.text != graph.text or _repacked(graph, result))
        step = Step(str(self), 1e3 * (time.perf_counter() - start), changed, len(result.nodes))
        return dataclasses.replace(result, history=graph.history.followed_by(step))


def _repacked(before: Graph, after: Graph) -> bool:
    """Whether weights are stored in other numbers of bits than before."""
    if before.weights.source is after.weights.source:
        return False
    old, new = (packed_weights(graph.weights.source) for graph in (before, after))
    return {path: one.bits for path, one in old.items()} != {
        path: one.bits for path, one in new.items()
    }
