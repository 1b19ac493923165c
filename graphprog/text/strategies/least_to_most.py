"""Least-to-most prompting: a question taken apart, its parts answered one after the other."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from graphprog.errors import ProgramError
from graphprog.spec.checks import require_pattern, require_text
from graphprog.spec.registry import Spec, spec
from graphprog.text.prompting.template import Template


@dataclass(frozen=True)
class Solution:
    """How a question was solved.

    Attributes:
        answer: to the question itself: that of the last step.
        steps: every sub-question with its answer, in order; the last one is the question.
        decomposition: what the model wrote in the first stage. Where no sub-question was found in
            it, there is one step.

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
    """Decompose, then solve in order (Zhou et al., ICLR 2023, arXiv:2205.10625).

    In the first stage the model lists sub-questions. In the second it is asked each of them behind
    those already answered, and the question itself at the end. Worked examples of either stage are
    written into ``decompose`` and ``preface``.

    Attributes:
        decompose: text of the first stage; before its answer it has the field ``question``, and
            ``context`` where wanted.
        solve: one answered sub-question; before its answer it has the field ``question`` alone, and
            its answer is its last field.
        preface: what stands in front of everything in the second stage.
        subquestion: a regular expression that finds the sub-questions in what the first stage
            wrote; its one group is the sub-question, or without a group all that it matches.
            Lines with a number or a bullet, unless given.
        separator: between the parts of the second stage. An answer ends where the model writes it.

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
                raise ProgramError(f"{self.kind}: {name} is {template!r:.60}, no Template")
            asked = set(template.query_fields)
            if "question" not in asked or not asked <= allowed:
                raise ProgramError(
                    f"{self.kind}: {name} asks with the fields {sorted(asked)}; it needs question"
                    + (", and may have context" if "context" in allowed else " alone"),
                    ['Template("Q: {question}\\nA: {answer}")'],
                )
        if self.solve.label != self.solve.answer:
            raise ProgramError(f"{self.kind}: solve has fields behind its answer")
        require_text(self.kind, "preface", self.preface, blank=True)
        require_text(self.kind, "separator", self.separator, blank=True)
        if not self.separator:
            raise ProgramError(f"{self.kind}: separator is empty: no answer would have an end")
        require_pattern(self.kind, "subquestion", self.subquestion)

    def run(self, question: str, generate: Callable[[str], str], context: str = "") -> Solution:
        """Both stages.

        Args:
            question: what is asked; the whole problem, unless part of it is ``context``.
            generate: gives what a model writes behind a text: without that text, with the space
                that it may begin with.
            context: what all sub-questions are about; it stands in front of them.

        Raises:
            ProgramError: there is a context, and ``decompose`` has no field for it.
        """
        given = {"question": question, "context": context}
        if context and "context" not in self.decompose.query_fields:
            raise ProgramError(
                f"{self.kind}: decompose has no field context, so the first stage would not show it"
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
        """Those listed, without the question itself, which is asked at the end in any case."""
        matches = re.finditer(self.subquestion, decomposition)
        listed = ((match[match.re.groups] or "").strip() for match in matches)
        return [part for part in listed if part and _plain(part) != _plain(question)]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
