"""Templates, instructions and triggers: what they render, what they refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprog.errors import DataError, ProgramError
from graphprog.spec.registry import Spec, format_spec, from_json, parse_spec, to_json
from graphprog.text import Demonstrations, Instruction, Template, ZeroShotCoT

ARROW = Template("{text} ->{label}")
WORKED = Template("Q: {question}\nA: {steps} So it is {label}.", answer="steps")
SPECS = [
    ARROW,
    WORKED,
    Template('{{"in": {text}, "out":{label}}}'),
    Instruction("Translate."),
    Instruction('Say "yes" or "no".\n', place="after", separator="\n"),
    ZeroShotCoT(),
    ZeroShotCoT(text="Let us see.", extraction="So", separator="", extraction_separator=" "),
    Demonstrations([], ARROW),
    Demonstrations([{"text": "a {b}", "label": "c\n"}, {"label": "e", "text": ""}], ARROW),
    Demonstrations(
        [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}],
        ARROW,
        separator="\n",
        order="nearest",
        count=2,
        balanced=True,
        seed=3,
    ),
]


@pytest.mark.parametrize("item", SPECS, ids=lambda item: item.kind)
def test_specs_survive_text_and_json(item: Spec) -> None:
    assert parse_spec(format_spec(item)) == item
    assert from_json(json.loads(json.dumps(to_json(item, {}))), {}) == item


def test_text_names_what_differs_from_the_defaults() -> None:
    assert str(ARROW) == 'template{text="{text} ->{label}" answer="label"}'
    assert str(Instruction("Hi.")) == 'instruction{text="Hi."}'
    assert str(ZeroShotCoT()) == "zero-shot-cot"
    assert str(Demonstrations([{"text": "a", "label": "b"}], ARROW)) == (
        f'demonstrations{{examples=[["a" "b"]] template={ARROW}}}'
    )


def test_a_template_renders_examples_and_queries() -> None:
    example = {"text": "warm", "label": " cold"}
    assert ARROW.render(example) == "warm -> cold"
    assert ARROW.query({"text": "warm"}) == ARROW.query(example) == "warm ->"
    assert ARROW.continuation(example) == " cold"
    assert (ARROW.fields, ARROW.query_fields) == (("text", "label"), ("text",))
    assert (ARROW.answer, ARROW.label) == ("label", "label")


def test_worked_steps_are_left_open_from_the_first() -> None:
    example = {"question": "2 + 3 + 4?", "steps": "2 + 3 = 5.", "label": "9"}
    assert WORKED.render(example) == "Q: 2 + 3 + 4?\nA: 2 + 3 = 5. So it is 9."
    assert WORKED.query({"question": "2 + 3 + 4?"}) == "Q: 2 + 3 + 4?\nA:"
    assert WORKED.continuation(example) == " 2 + 3 = 5. So it is 9."
    assert (WORKED.query_fields, WORKED.answer, WORKED.label) == (("question",), "steps", "label")


@pytest.mark.parametrize("text", ["{text} ->{label}", "{text} -> {label}"])
@pytest.mark.parametrize("label", ["good", " good"])
def test_the_space_before_an_answer_belongs_to_it(text: str, label: str) -> None:
    template = Template(text)
    example = {"text": "fine", "label": label}
    assert template.query(example) == "fine ->"
    written = "good" if text.endswith(">{label}") and label == "good" else " good"
    assert template.continuation(example) == written


def test_a_line_break_before_an_answer_stays_in_the_query() -> None:
    template = Template("{text}\n {label}")
    assert template.query({"text": "a"}) == "a\n"
    assert template.continuation({"text": "a", "label": "b"}) == " b"


def test_fields_may_repeat_and_braces_be_written() -> None:
    template = Template("{{{a}}} {b} {a}: {c}")
    assert template.fields == ("a", "b", "c")
    assert template.render({"a": "{x}", "b": "{{", "c": "}"}) == "{{x}} {{ {x}: }"


WORDS = st.text(alphabet="ab {}\t\n", max_size=6)


@given(
    literals=st.tuples(WORDS, WORDS.map(lambda text: text + ":"), WORDS),
    values=st.tuples(WORDS, WORDS),
)
def test_a_query_is_the_beginning_of_its_demonstration(
    literals: tuple[str, str, str], values: tuple[str, str]
) -> None:
    start, middle, end = (part.replace("{", "{{").replace("}", "}}") for part in literals)
    template = Template(f"{start}{{text}}{middle}{{label}}{end}")
    example = dict(zip(("text", "label"), values, strict=True))
    query = template.query({"text": values[0]})
    assert query + template.continuation(example) == template.render(example)
    assert not query.endswith((" ", "\t"))
    assert parse_spec(format_spec(template)) == template


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"text": "no field"}, "has no field"),
        ({"text": "{text"}, "expected '}'"),
        ({"text": "{text} }"}, "Single '}'"),
        ({"text": "{} {label}"}, "a field must be a plain name"),
        ({"text": "{0}"}, "a field must be a plain name"),
        ({"text": "{text.real}"}, "a field must be a plain name"),
        ({"text": "{text!r} {label}"}, "a field must be a plain name"),
        ({"text": "{text:>3} {label}"}, "a field must be a plain name"),
        ({"text": "{text} {label}", "answer": "labels"}, "'labels' appears 0 times"),
        ({"text": "{label} {text} {label}"}, "'label' appears 2 times"),
        ({"text": " {label} {text}", "answer": "label"}, "a query would be empty"),
        ({"text": 3}, "text must be text, not 3"),
        ({"text": "{text}", "answer": None}, "answer must be text, not None"),
    ],
)
def test_templates_that_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ProgramError) as caught:
        Template(**arguments)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("example", "said"),
    [
        ({"label": "b"}, "has no 'text', a field of '{text} ->{label}'"),
        ({"text": "a"}, "has no 'label'"),
        ({"text": "a", "label": "b", "lable": "c"}, "has 'lable', which is not a field"),
        ({"text": "a", "label": 3}, "field 'label' of an example is 3, a int, not text"),
        (["a", "b"], "must map fields to texts, not be a list"),
    ],
)
def test_examples_that_are_refused(example: Any, said: str) -> None:
    for call in (ARROW.render, ARROW.continuation):
        with pytest.raises(DataError) as caught:
            call(example)
        assert said in str(caught.value)


def test_queries_that_are_refused() -> None:
    with pytest.raises(DataError, match="has no 'text'"):
        ARROW.query({"label": "b"})
    with pytest.raises(DataError, match="has 'color', which is not a field"):
        ARROW.query({"text": "a", "color": "b"})


def test_an_instruction_stands_in_front_or_behind() -> None:
    assert Instruction("Translate.").render("warm ->") == "Translate.\n\nwarm ->"
    behind = Instruction("In one word: ", place="after", separator="\n")
    assert behind.render("What is it?") == "What is it?\nIn one word:"


def test_a_trigger_asks_twice() -> None:
    asked: list[str] = []

    def generate(text: str) -> str:
        asked.append(text)
        return [" 2 + 3 is 5. \n", " 5."][len(asked) - 1]

    found = ZeroShotCoT().run("Q: 2 + 3?\nA:", generate)
    first = "Q: 2 + 3?\nA: Let's think step by step."
    assert asked == [first, f"{first} 2 + 3 is 5.\nTherefore, the answer is"]
    assert (found.reasoning, found.answer) == (" 2 + 3 is 5. \n", " 5.")


@pytest.mark.parametrize(
    ("cls", "arguments", "said"),
    [
        (Instruction, {"text": " \n"}, "text is empty"),
        (Instruction, {"text": 3}, "text must be text, not 3"),
        (Instruction, {"text": "a", "place": "below"}, "place must be one of before, after"),
        (Instruction, {"text": "a", "separator": None}, "separator must be text"),
        (ZeroShotCoT, {"text": ""}, "text is empty"),
        (ZeroShotCoT, {"extraction": ""}, "extraction is empty"),
        (ZeroShotCoT, {"separator": 1}, "separator must be text"),
    ],
)
def test_instructions_and_triggers_that_are_refused(
    cls: type[Spec], arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ProgramError) as caught:
        cls(**arguments)
    assert said in str(caught.value)
