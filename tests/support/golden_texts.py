"""Texts of graphs before and after passes, each in a file that says what to run.

A file begins with comments, the name of a model, and passes in their text form; the rest is what
comes of them::

    # Why this case is here.
    model: reader
    passes: extend-axis{op=concatenative{at="tokens"}}

    before:
    graph Reader(ids: i64[B,S]) -> logits: f32[B,S,3]
    ...

    after:
    graph ...

In place of ``after`` stands ``refused`` with the error, or ``unchanged`` with what
:func:`graphprog.passes.attention.match_attention.explain` says of the graph.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import graphprog as gp
from graphprog.errors import GraphprogError
from graphprog.ir.graph import Graph
from graphprog.passes.attention.match_attention import MatchAttention, explain
from graphprog.passes.pipeline import Pipeline
from tests.models.tiny_models import TENSORS, TINY, tiny
from tests.models.zoo import captured

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ROOT / "tests" / "text"


@dataclasses.dataclass(frozen=True)
class GoldenText:
    """What a file says to run.

    Attributes:
        head: the lines above the first graph, which are kept as they are.
        model: a name of tests/models/tiny_models.py or tests/models/zoo.py.
        passes: what runs; the last one is what the file is about.
    """

    head: str
    model: str
    passes: Pipeline

    @classmethod
    def read(cls, path: Path) -> GoldenText:
        head = path.read_text(encoding="utf-8").split("\n\n")[0].rstrip("\n")
        fields = dict(re.findall(r"^(model|passes): (.*)$", head, re.MULTILINE))
        return cls(head, fields["model"], Pipeline.parse(fields.get("passes", ""), TENSORS))

    @property
    def graph(self) -> gp.Graph:
        return tiny(self.model) if self.model in TINY else captured(self.model)[1]

    def render(self) -> str:
        """The text of the whole file."""
        graph = self.graph
        if not self.passes.passes:
            return f"{self.head}\n\ngraph:\n{graph.text}\n"
        return f"{self.head}\n\nbefore:\n{graph.text}\n\n{self._outcome(graph)}\n"

    def _outcome(self, graph: Graph) -> str:
        try:
            after = self.passes(graph)
        except GraphprogError as error:
            return f"refused:\n{type(error).__name__}: {error}".replace(f"{ROOT}/", "")
        if after.text != graph.text:
            return f"after:\n{after.text}"
        matching = isinstance(self.passes.passes[-1], MatchAttention)
        why = explain(graph) if matching else []
        return "\n".join(["unchanged:", *why]).replace(f"{ROOT}/", "")
