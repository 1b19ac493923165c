"""Pipelines: lists of passes that are passes, with a text form that parses back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, MutableMapping

import torch

from graphprog.errors import FileError, GraphprogError, PassError
from graphprog.ir.graph import Graph
from graphprog.passes.base import Pass
from graphprog.spec.grammar import Parser, format_tree
from graphprog.spec.registry import from_json, spec, to_json


@spec("pipeline")
@dataclasses.dataclass(frozen=True)
class Pipeline(Pass):
    """Passes in order. ``str`` gives ``first{...} ; second``, and :meth:`parse` reads it.

    Example:
        >>> pipeline = gp.passes.Pipeline.parse("drop-dropout ; drop-dead-code")
        >>> smaller = pipeline(graph)
        >>> str(pipeline)
        'drop-dropout ; drop-dead-code'
    """

    passes: tuple[Pass, ...] = ()

    def requires(self, graph: Graph) -> None:
        """Refuse an order that a pass declares wrong."""
        kinds = [item.kind for item in self.passes]
        for position, item in enumerate(self.passes):
            late = [kind for kind in item.after if kind in kinds[position + 1 :]]
            if late:
                raise PassError(
                    f"pass {item.kind!r} at position {position} must come after {late[0]!r}",
                    [f"move {late[0]!r} before it"],
                )

    def run(self, graph: Graph) -> Graph:
        """Run all passes, naming position and predecessors when one fails."""
        for position, item in enumerate(self.passes):
            try:
                graph = item(graph)
            except GraphprogError as error:
                before = " ; ".join(step.kind for step in self.passes[:position]) or "nothing"
                error.add_note(f"in pass {position} of the pipeline, {item.kind}; before: {before}")
                raise
        return graph

    def __call__(self, graph: Graph) -> Graph:
        """Run the passes; each writes its own entry of the history."""
        self.requires(graph)
        return self.run(graph)

    def text(self, tensors: MutableMapping[str, torch.Tensor] | None = None) -> str:
        """Text form; tensors inside are put into ``tensors`` under the names the text uses."""
        kept = {} if tensors is None else tensors
        return " ; ".join(
            format_tree(to_json(item, kept, str(number))) for number, item in enumerate(self.passes)
        )

    def __str__(self) -> str:
        return self.text()

    @classmethod
    def parse(cls, text: str, tensors: Mapping[str, torch.Tensor] | None = None) -> Pipeline:
        """Inverse of :meth:`text`.

        Raises:
            FileError: the text is outside the grammar, or names a pass nobody registered.
        """
        parser = Parser(text)
        passes: list[Pass] = []
        while parser.peek() is not None:
            if passes:
                parser.take(";")
            item = from_json(parser.value(0), tensors or {})
            if not isinstance(item, Pass):
                raise FileError(f"pipeline text: {item!r} is not a pass")
            passes.append(item)
        return cls(tuple(passes))
