"""Least-to-most prompting: what is asked in which order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from graphprog.errors import ProgramError
from graphprog.spec.registry import format_spec, from_json, parse_spec, to_json
from graphprog.text import LeastToMost, Template

DECOMPOSE = Template("{context} {question}\nParts:\n{parts}")
SOLVE = Template("Q: {question}\nA: {answer}")
PLAIN = LeastToMost(Template("Take apart: {question}\n{parts}"), SOLVE)


class Scripted:
    """A model that writes what it is told, and notes what it was asked."""

    def __init__(self, *written: str) -> None:
        self.written = list(written)
        self.asked: list[str] = []

    def __call__(self, text: str) -> str:
        self.asked.append(text)
        return self.written.pop(0)


def test_specs_survive_text_and_json() -> None:
    for item in (PLAIN, LeastToMost(DECOMPOSE, SOLVE, "Like so.", r'"(.*?)"', "\n---\n")):
        assert parse_spec(format_spec(item)) == item
        assert from_json(json.loads(json.dumps(to_json(item, {}))), {}) == item


def test_answered_parts_stand_in_front_of_the_next() -> None:
    model = Scripted("1. How long is one?\n2) How many fit?\n", " 5.\n", " 3.\n\nQ: more", "So 3.")
    found = LeastToMost(DECOMPOSE, SOLVE, preface="Q: x\nA: y").run(
        "How many times?", model, context="It takes 4 + 1, of 15."
    )
    start = "Q: x\nA: y\n\nIt takes 4 + 1, of 15.\n\n"
    first = "Q: How long is one?\nA:"
    second = f"{first} 5.\n\nQ: How many fit?\nA:"
    assert model.asked == [
        "It takes 4 + 1, of 15. How many times?\nParts:\n",
        start + first,
        start + second,
        f"{start}{second} 3.\n\nQ: How many times?\nA:",
    ]
    assert found.answer == "So 3."
    assert found.steps == (
        ("How long is one?", "5."),
        ("How many fit?", "3."),
        ("How many times?", "So 3."),
    )
    assert found.decomposition.startswith("1. How long")


def test_the_question_itself_is_asked_once() -> None:
    found = PLAIN.run("How many?", Scripted("- one?\n- how  MANY?", " 1", " 2"))
    assert found.steps == (("one?", "1"), ("How many?", "2"))


def test_without_parts_only_the_question_is_asked() -> None:
    model = Scripted("I cannot.", " 2")
    assert PLAIN.run("How many?", model).steps == (("How many?", "2"),)
    assert model.asked[1] == "Q: How many?\nA:"


def test_parts_are_found_by_a_pattern() -> None:
    quoted = LeastToMost(PLAIN.decompose, SOLVE, subquestion=r'"([^"]+)"')
    found = quoted.run("c?", Scripted('We need "a?" and "b?".', "1", "2", "3"))
    assert [part for part, _ in found.steps] == ["a?", "b?", "c?"]


def test_an_answer_is_put_back_as_it_was_written() -> None:
    tight = LeastToMost(PLAIN.decompose, Template("{question}={answer}"), separator=";")
    model = Scripted("- a", "1; b=7", "2")
    assert tight.run("b", model).steps == (("a", "1"), ("b", "2"))
    assert model.asked[2] == "a=1;b="


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"decompose": "{question} {parts}"},
            "decompose must be a Template, not '{question} {parts}'",
        ),
        ({"decompose": Template("{problem} {parts}")}, "decompose has the query fields"),
        ({"solve": Template("{context} {question} {answer}")}, "needs question alone"),
        ({"solve": Template("{question} {steps} {answer}", "steps")}, "fields after its answer"),
        ({"preface": None}, "preface must be text"),
        ({"separator": ""}, "separator is empty"),
        ({"subquestion": "("}, "subquestion '(': missing )"),
        ({"subquestion": "(a)(b)"}, "has 2 groups"),
    ],
)
def test_programs_that_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ProgramError) as caught:
        LeastToMost(**{"decompose": DECOMPOSE, "solve": SOLVE, **changes})
    assert said in str(caught.value)


def test_a_context_must_be_shown_in_both_stages() -> None:
    with pytest.raises(ProgramError, match="decompose has no field context"):
        PLAIN.run("How many?", Scripted(), context="Of 15.")
