"""Zero-shot chain of thought: a sentence that starts the reasoning, one that ends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphprog.spec.checks import require_text
from graphprog.spec.registry import Spec, spec


@dataclass(frozen=True)
class Reasoned:
    """What a model wrote in the two stages.

    Attributes:
        reasoning: behind the trigger.
        answer: behind the extraction, to be read by a :class:`graphprog.text.Parse`.

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

    First the model reasons behind the trigger; then its reasoning is put back behind the query,
    with words that leave nothing but the answer to be written.

    Attributes:
        text: the trigger, which stands behind the query.
        extraction: what stands behind the reasoning.
        separator: between the query and the trigger.
        extraction_separator: between the reasoning and the extraction.

    Example:
        >>> trigger = gp.text.ZeroShotCoT()
        >>> trigger.first("Q: 2 + 3? A:")
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
        """Text of the first stage: the query and the trigger."""
        return (query + self.separator + self.text).rstrip(" \t")

    def second(self, query: str, reasoning: str) -> str:
        """Text of the second stage: the first, its reasoning, and the extraction."""
        written = (self.first(query) + reasoning).rstrip()
        return (written + self.extraction_separator + self.extraction).rstrip(" \t")

    def run(self, query: str, generate: Callable[[str], str]) -> Reasoned:
        """Both stages.

        Args:
            query: a query that ends where its answer begins.
            generate: gives what a model writes behind a text: without that text, with the space
                that it may begin with.
        """
        reasoning = generate(self.first(query))
        return Reasoned(reasoning, generate(self.second(query, reasoning)))
