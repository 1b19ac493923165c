"""Zero-shot chain of thought: one sentence elicits reasoning, another the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphprog.spec.checks import require_text
from graphprog.spec.registry import Spec, spec


@dataclass(frozen=True)
class Reasoned:
    """Result of zero-shot chain of thought.

    Attributes:
        reasoning: text generated after the trigger sentence.
        answer: text generated after the extraction sentence, for a :class:`graphprog.Parse`.

    Example:
        >>> found = gp.text.ZeroShotCoT().run("Q: 2 + 3? A:", lambda text: " 5.")
        >>> found.reasoning, found.answer
        (' 5.', ' 5.')
    """

    reasoning: str
    answer: str


@spec("zero-shot-cot")
@dataclass(frozen=True)
class ZeroShotCoT(Spec):
    """Zero-shot chain of thought in two stages (Kojima et al., NeurIPS 2022, arXiv:2205.11916).

    First the model reasons after the trigger sentence; then its reasoning is appended to the query,
    with an extraction sentence after which only the answer is left to write.

    Attributes:
        text: the trigger sentence after the query.
        extraction: the extraction sentence after the reasoning.
        separator: text between the query and the trigger sentence.
        extraction_separator: text between the reasoning and the extraction sentence.

    Example:
        >>> strategy = gp.text.ZeroShotCoT()
        >>> strategy.first("Q: 2 + 3? A:")
        "Q: 2 + 3? A: Let's think step by step."
    """

    text: str = "Let's think step by step."
    extraction: str = "Therefore, the answer is"
    separator: str = " "
    extraction_separator: str = "\n"

    def __post_init__(self) -> None:
        for name in ("text", "extraction"):
            require_text(self.kind, name, getattr(self, name))
        for name in ("separator", "extraction_separator"):
            require_text(self.kind, name, getattr(self, name), blank=True)

    def first(self, query: str) -> str:
        """Text of the first stage: the query and the trigger sentence."""
        return (query + self.separator + self.text).rstrip(" \t")

    def second(self, query: str, reasoning: str) -> str:
        """Text of the second stage: the first, its reasoning, and the extraction sentence."""
        written = (self.first(query) + reasoning).rstrip()
        return (written + self.extraction_separator + self.extraction).rstrip(" \t")

    def run(self, query: str, generate: Callable[[str], str]) -> Reasoned:
        """Run both stages.

        Args:
            query: a query that ends where its answer begins.
            generate: returns the text that a model writes after a text: without that text, with
                its leading space if any.
        """
        reasoning = generate(self.first(query))
        return Reasoned(reasoning, generate(self.second(query, reasoning)))
