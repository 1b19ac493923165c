"""Passes: graph in, graph out, with a contract."""

from __future__ import annotations

import dataclasses
import time
from abc import abstractmethod
from typing import ClassVar

from graphprog.errors import GraphprogError, PassError
from graphprog.graph import Graph, Step
from graphprog.spec import Spec


@dataclasses.dataclass(frozen=True)
class Pass(Spec):
    """A rewriting of graphs. Subclasses are frozen dataclasses whose fields are the options.

    Calling a pass checks :meth:`requires`, runs :meth:`run`, checks :meth:`ensures` and adds an
    entry to the graph's history. Whether anything changed is read off the canonical text.
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
            result = self.run(graph)
            self.ensures(graph, result)
        except GraphprogError:
            raise
        except Exception as error:
            raise PassError(
                f"pass {self} failed on {graph.name}: {type(error).__name__}: {error}",
                ["this is a defect of the pass: report it with print(graph)"],
            ) from error
        changed = result is not graph and str(result) != str(graph)
        step = Step(str(self), 1e3 * (time.perf_counter() - start), changed, len(result.nodes))
        return dataclasses.replace(result, history=(*graph.history, step))
