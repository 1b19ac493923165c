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
from graphprog.rewriting.fake_tracing import keeping_sizes
from graphprog.spec.registry import Spec

Watcher = Callable[["Pass", Graph, Graph], None]
"""Called with a pass that has run, the graph it was given, and its result."""

_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Show every pass that runs inside the block, and what it did, to a function.

    What the function raises counts as raised by the pass: tests verify every pass this way.
    """
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


@dataclasses.dataclass(frozen=True)
class Pass(Spec):
    """A rewriting of graphs. Subclasses are frozen dataclasses whose fields are the options.

    Calling a pass checks :meth:`requires`, runs :meth:`run`, checks :meth:`ensures` and adds an
    entry to the graph's history. Whether anything changed is read off the canonical text.

    Example:
        >>> smaller = gp.passes.DropDeadCode()(graph)
        >>> assert isinstance(gp.passes.DropDeadCode(), gp.passes.Pass)
        >>> smaller.history[-1].text
        'drop-dead-code'
    """

    after: ClassVar[tuple[str, ...]] = ()
    """Kinds of passes that, where a pipeline has them too, come earlier."""

    def requires(self, graph: Graph) -> None:
        """Raise if the graph is not fit for this pass."""

    @abstractmethod
    def run(self, graph: Graph) -> Graph:
        """Return the rewritten graph; never touch the one given."""

    def ensures(self, before: Graph, after: Graph) -> None:
        """Raise if the result breaks a promise of this pass."""

    def __call__(self, graph: Graph) -> Graph:
        """Run under the contract.

        Raises:
            PassError: anything went wrong; names this pass and keeps the cause.
        """
        start = time.perf_counter()
        try:
            self.requires(graph)
            with keeping_sizes(node.meta.get("val") for node in graph.placeholders):
                result = self.run(graph)
            self.ensures(graph, result)
            if (watcher := _WATCHER.get()) is not None:
                watcher(self, graph, result)
        except GraphprogError:
            raise
        except Exception as error:
            raise PassError(
                f"pass {self} failed on {graph.name}: {type(error).__name__}: {error}",
                ["this is a defect of the pass: report it with graph.text"],
            ) from error
        changed = result is not graph and result.text != graph.text
        step = Step(str(self), 1e3 * (time.perf_counter() - start), changed, len(result.nodes))
        return dataclasses.replace(result, history=graph.history.followed_by(step))
