"""Least-to-most prompting: decompose a question, then answer its parts in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphprog.errors import ProgramError
from graphprog.spec.checks import require_pattern, require_text
from graphprog.spec.registry import Spec, spec
from graphprog.text.prompting.template import Template
from graphprog.utils.patterns import find_all


@dataclass(frozen=True)
class Solution:
    """Result of least-to-most prompting.

    Attributes:
        answer: the answer to the question, which is that of the last step.
        steps: every sub-question with its answer, in order; the last one is the question.
        decomposition: text generated in the first stage. If no sub-question was found in it, there
            is one step.

    Example:
        >>> form = gp.Template("Q: {question} A: {answer}")
        >>> solved = gp.text.LeastToMost(form, form).run("How many legs?", lambda text: " four")
        >>> solved.steps
        (('How many legs?', 'four'),)
    """

    answer: str
    steps: tuple[tuple[str, str], ...]
    decomposition: str


@spec("least-to-most")
@dataclass(frozen=True)
class LeastToMost(Spec):
    """Least-to-most prompting in two stages (Zhou et al., ICLR 2023, arXiv:2205.10625).

    In the first stage the model lists sub-questions. In the second it answers each of them after
    those already answered, and the question itself at the end. Put demonstrations of either stage
    into ``decompose`` and ``preface``.

    Attributes:
        decompose: template of the first stage; before its answer it has the field ``question``,
            and optionally ``context``.
        solve: template of one answered sub-question; before its answer it has only the field
            ``question``, and its answer is its last field.
        preface: text at the beginning of the second stage.
        subquestion: regular expression in RE2's syntax that finds the sub-questions in the text of
            the first stage; its only group is the sub-question, or without a group the whole
            match. By default it matches lines with a number or a bullet.
        separator: text between the parts of the second stage. An answer ends where the model
            writes it.

    Example:
        >>> form = gp.Template("Q: {question} A: {answer}")
        >>> solved = gp.text.LeastToMost(form, form).run("How many legs?", lambda text: " four")
        >>> solved.answer
        'four'
    """

    decompose: Template
    solve: Template
    preface: str = ""
    subquestion: str = r"(?m)^[ \t]*(?:\d+[.):]|[-*•])[ \t]+(.*\S)"
    separator: str = "\n\n"

    def __post_init__(self) -> None:
        for name, allowed in (("decompose", {"question", "context"}), ("solve", {"question"})):
            template = getattr(self, name)
            if not isinstance(template, Template):
                raise ProgramError(f"{self.kind}: {name} must be a Template, not {template!r:.60}")
            asked = set(template.query_fields)
            if "question" not in asked or not asked <= allowed:
                raise ProgramError(
                    f"{self.kind}: {name} has the query fields {sorted(asked)}; it needs question"
                    + (", and may have context" if "context" in allowed else " alone"),
                    ['use Template("Q: {question}\\nA: {answer}")'],
                )
        if self.solve.label != self.solve.answer:
            raise ProgramError(f"{self.kind}: solve has fields after its answer")
        require_text(self.kind, "preface", self.preface, blank=True)
        require_text(self.kind, "separator", self.separator, blank=True)
        if not self.separator:
            raise ProgramError(f"{self.kind}: separator is empty, so no answer would ever end")
        require_pattern(self.kind, "subquestion", self.subquestion)

    def run(self, question: str, generate: Callable[[str], str], context: str = "") -> Solution:
        """Run both stages.

        Args:
            question: the question; the whole problem, unless part of it is ``context``.
            generate: returns the text that a model writes after a text: without that text, with
                its leading space if any.
            context: text that all sub-questions are about; it is put before them.

        Raises:
            ProgramError: there is a context, but ``decompose`` has no field for it.
        """
        given = {"question": question, "context": context}
        if context and "context" not in self.decompose.query_fields:
            raise ProgramError(
                f"{self.kind}: decompose has no field context, so the first stage would omit it"
            )
        asked = {name: given[name] for name in self.decompose.query_fields}
        decomposition = generate(self.decompose.query(asked))
        parts = [part for part in (self.preface, context) if part]
        steps: list[tuple[str, str]] = []
        for part in [*self._subquestions(decomposition, question), question]:
            ask = {"question": part}
            written = generate(self.separator.join([*parts, self.solve.query(ask)]))
            answer = written.lstrip().split(self.separator, 1)[0].rstrip()
            steps.append((part, answer))
            space = " " if written[:1].isspace() else ""
            parts.append(self.solve.render({**ask, self.solve.answer: space + answer}))
        return Solution(steps[-1][1], tuple(steps), decomposition)

    def _subquestions(self, decomposition: str, question: str) -> list[str]:
        """The sub-questions listed, without the question itself, which is always asked last."""
        listed = (part.strip() for part in find_all(self.subquestion, decomposition))
        return [part for part in listed if part and _plain(part) != _plain(question)]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
