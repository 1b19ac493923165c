"""Reading answers and voting on them."""

from __future__ import annotations

import json
import math
import string
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprog.errors import DataError, ProgramError
from graphprog.spec.registry import Spec, format_spec, from_json, parse_spec, to_json
from graphprog.text import (
    AnswerParser,
    Parse,
    ParseJSON,
    ParseNumber,
    Unparsed,
    unparsed_share,
    vote,
)

ANSWER = r"answer is (-?\d+)"
PERSON: dict[str, Any] = {
    "type": "object",
    "title": "a person",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}},
    },
    "required": ["name"],
}
SPECS = [
    Parse(ANSWER),
    Parse(ANSWER, pick="first", type=int),
    Parse('"x" {\n', type="float"),
    Parse.number(),
    Parse.number(pick="first"),
    Parse.json(PERSON),
    Parse.json('{ "type": "array" }', pick="first"),
]


@pytest.mark.parametrize("item", SPECS, ids=str)
def test_specs_survive_text_and_json(item: Spec) -> None:
    assert parse_spec(format_spec(item)) == item
    assert from_json(json.loads(json.dumps(to_json(item, {}))), {}) == item


def test_text_names_what_differs_from_the_defaults() -> None:
    assert str(Parse("a", type=int)) == 'parse{pattern="a" type="int"}'
    assert str(Parse("a", type=str)) == 'parse{pattern="a"}'
    assert str(Parse.number()) == "parse-number"
    assert str(Parse.json({"type": "array"})) == 'parse-json{schema="{\\"type\\":\\"array\\"}"}'
    assert Parse.json(PERSON) == Parse.json(json.dumps(PERSON, indent=2))


def test_a_pattern_reads_its_group_or_its_match() -> None:
    text = "The answer is 3. No: the answer is -12."
    assert Parse(ANSWER, type=int)(text) == -12
    assert Parse(ANSWER, pick="first", type=int)(text) == 3
    assert Parse(ANSWER)(text) == "-12"
    assert Parse(r"(?i)THE (?:answer|result)")(text) == "the answer"
    assert Parse(r"is (.*)", type=float)("it is 1,234.5.") == 1234.5
    assert Parse(r"is(.*)", type=str)("it is  so ") == "so"


@pytest.mark.parametrize(
    ("parse", "text", "reason"),
    [
        (Parse(ANSWER), "I do not know", "nothing matches"),
        (Parse(ANSWER), "", "nothing matches"),
        (Parse(r"is (\w+)", type=int), "it is four", "'four' is not an int"),
        (Parse(r"is (.+)", type=int), "it is 4.5", "'4.5' is not an int"),
        (Parse(r"is (.+)", type=int), "it is 4 or 5", "is not an int"),
        (Parse(r"is (.+)", type=float), "it is 1" + "0" * 400, "is not a float"),
        (Parse(r"is (.+)", type=float), "it is nan", "'nan' is not a float"),
        (Parse(r"is ?(x*)"), "it is", "the match is empty"),
        (Parse(r"is(?: (x))?"), "it is", "the match is empty"),
        (Parse.number(), "none at all", "there is no number"),
        (Parse.number(), "1e999", "'1e999' is out of range"),
        (Parse.number(), "9" * 5000, "out of range"),
    ],
)
def test_what_cannot_be_read_is_an_answer_of_its_own(
    parse: AnswerParser, text: str, reason: str
) -> None:
    found = parse(text)
    assert isinstance(found, Unparsed)
    assert found.text == text
    assert reason in found.reason


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is 42.", 42),
        ("The answer is 42.0.", 42.0),
        ("3 apples and 4 pears make 7 fruits", 7),
        ("$1,234,567.89", 1234567.89),
        ("-$5", -5),
        ("$-5", -5),
        ("\N{MINUS SIGN}3", -3),
        ("+3", 3),
        ("it is .5", 0.5),
        ("-0.25%", -0.25),
        ("6.02e23 of them", 6.02e23),
        ("10-3", 3),
        ("x-3", 3),
        ("x = -3", -3),
        ("(1+2)-3", 3),
        ("1, 2, 3", 3),
        ("12,34", 34),
        ("1,2345", 2345),
        ("1,234,", 1234),
        ("version 1.2.3", 1.2),
        ("5km", 5),
        ("7 for H2O", 7),
        ("答案是42。", 42),
        ("007", 7),
    ],
)
def test_numbers_in_running_text(text: str, value: float) -> None:
    found = Parse.number()(text)
    assert found == value
    assert type(found) is type(value)


def test_the_first_number() -> None:
    assert ParseNumber("first")("3 and 4") == 3


@given(number=st.integers(), words=st.text(string.ascii_letters + " .,:;!?\n"))
def test_whole_numbers_come_back(number: int, words: str) -> None:
    for written in (f"{number}", f"{number:,}"):
        text = f"{words} answer is {written}. {words}"
        assert Parse.number()(text) == number
        assert Parse(r"answer is (\S+)", type=int)(text) == number


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_decimals_come_back(number: float) -> None:
    assert Parse.number()(f"It is {number!r}.") == number
    assert Parse("(.+)", type=float)(f" {number!r}. ") == number


@given(text=st.text(alphabet=st.sampled_from('0123456789.,-+$e{}[]":ax '), max_size=20))
def test_no_text_raises(text: str) -> None:
    for parse in (Parse(r"(\S+)", type=float), Parse.number(), Parse.json(PERSON)):
        found = parse(text)
        if isinstance(found, float):
            assert math.isfinite(found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"pattern": "("}, "pattern '(': missing )"),
        ({"pattern": "(a)(b)"}, "has 2 groups; one is what is read"),
        ({"pattern": ""}, "pattern is empty"),
        ({"pattern": 3}, "pattern must be text"),
        ({"pattern": "a", "pick": "best"}, "pick must be one of last, first"),
        ({"pattern": "a", "type": "number"}, "type must be one of int, float, str"),
        ({"pattern": "a", "type": bool}, "type must be one of int, float, str"),
        ({"pattern": "a", "type": []}, "type must be one of int, float, str"),
    ],
)
def test_patterns_that_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ProgramError) as caught:
        Parse(**arguments)
    assert said in str(caught.value)


def test_json_within_prose() -> None:
    text = 'Sure {ok}:\n```json\n{"name": "A", "x": {"name": 1}}\n```\nor {"name": "B"} it is.'
    assert Parse.json(PERSON)(text) == {"name": "B"}
    assert Parse.json(PERSON, pick="first")(text) == {"name": "A", "x": {"name": 1}}
    assert Parse.json({"type": "array"})("see [1]: [[1], 2]") == [[1], 2]
    assert Parse.json({})('{"a": NaN} [2] {"a": 1}') == {"a": 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no object here, only [1]", "there is no JSON object"),
        ('{"name": "A"', "there is no JSON object"),
        ('{"name": NaN}', "there is no JSON object"),
        ('{"age": 3}', "the value has no 'name'"),
        ('{"name": 3}', ".name is not of type string"),
        ('{"name": "A", "age": 3.5}', ".age is not of type integer"),
        ('{"name": "A", "age": true}', ".age is not of type integer"),
        ('{"name": "A", "tags": {}}', ".tags is not of type array"),
        ('{"name": "A", "tags": ["a", "c"]}', '.tags[1] is not one of ["a", "b"]'),
        ('{"name": "A", "x": 1e999}', "JSON has no inf"),
        ('{"name": "A", "x": "\\ud800"}', "lone surrogate"),
        ('{"name": "A", "x": ' + "[" * 99 + "]" * 99 + "}", "nested deeper"),
        ('{"x": ' + "[" * 9999 + "]" * 9999 + "}", ""),
    ],
)
def test_json_that_does_not_fit(text: str, reason: str) -> None:
    found = Parse.json(PERSON)(text)
    assert isinstance(found, Unparsed)
    assert reason in found.reason


def test_types_and_choices_of_json() -> None:
    kinds = ["object", "array", "string", "number", "integer", "boolean", "null"]
    fits = {
        "{}": "object",
        "[]": "array",
        '""': "string",
        "1": "number integer",
        "1.0": "number integer",
        "1.5": "number",
        "true": "boolean",
        "null": "null",
    }
    for value, names in fits.items():
        for kind in kinds:
            parse = Parse.json({"properties": {"a": {"type": kind}}})
            found = parse(f'{{"a": {value}}}')
            assert isinstance(found, Unparsed) == (kind not in names.split()), (value, kind)
    one = Parse.json({"properties": {"a": {"enum": [1, None]}}})
    assert one('{"a": 1.0}') == {"a": 1}
    assert one('{"a": 1}') == {"a": 1}
    assert isinstance(one('{"a": true}'), Unparsed)


DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(value=st.dictionaries(st.text(), DOCUMENTS, max_size=3), words=st.text("ab {[.\n"))
def test_json_comes_back(value: dict[str, Any], words: str) -> None:
    assert Parse.json({})(f"{words} so: {json.dumps(value)}") == value


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{", "schema: not valid JSON"),
        ("[]", "schema must be an object"),
        ({"type": "text"}, "schema.type must be one of object"),
        ({"type": "string"}, "the answer is of type string"),
        ({"type": ["object", "null"]}, "schema.type must be one of"),
        ({"minLength": 3}, "keyword 'minLength' is not supported"),
        ({"properties": {"a": {"pattern": "x"}}}, "schema.properties.a: keyword 'pattern'"),
        ({"properties": []}, "schema.properties must be an object"),
        ({"required": "name"}, "schema.required must be a list of names"),
        ({"items": [{}]}, "schema.items must be an object"),
        ({"enum": []}, "schema.enum must be a list of values"),
        ({"enum": [math.nan]}, "JSON has no nan"),
        ({"default": object()}, "is not a JSON value"),
    ],
)
def test_schemas_that_are_refused(schema: Any, said: str) -> None:
    with pytest.raises(ProgramError) as caught:
        Parse.json(schema)
    assert said in str(caught.value)


def test_schemas_are_text_in_the_spec() -> None:
    schema: Any = {"type": "object"}
    with pytest.raises(ProgramError, match="schema must be text"):
        ParseJSON(schema)


def test_the_share_of_failures() -> None:
    failed = Unparsed("?", "there is no number")
    assert unparsed_share([1, failed, 2, failed]) == 0.5
    assert unparsed_share(["a"]) == 0.0
    with pytest.raises(DataError, match="no answers to take a share of"):
        unparsed_share([])


def test_a_vote_counts_what_was_parsed() -> None:
    failed = Unparsed("?", "there is no number")
    found = vote([failed, 3, 4, 3.0, failed, 5])
    assert (found.answer, found.share, found.unparsed) == (3, 0.5, 2)
    assert found.counts == ((3, 2), (4, 1), (5, 1))


def test_a_tie_is_broken_by_the_first_seen() -> None:
    assert vote(["b", "a", "a", "b"]).answer == "b"
    assert vote(["c", "b", "a", "a", "b"]).answer == "b"


def test_json_votes_by_content() -> None:
    found = vote([{"a": 1, "b": 2}, [1], {"b": 2.0, "a": 1}])
    assert (found.answer, found.share) == ({"a": 1, "b": 2}, 2 / 3)


def test_a_vote_without_votes() -> None:
    failed = [Unparsed("one", "x"), Unparsed("two", "x")]
    found = vote(failed)
    assert (found.answer, found.share, found.counts, found.unparsed) == (failed[0], 0.0, (), 2)
    with pytest.raises(DataError, match="no answers to vote"):
        vote([])


ANSWERS = st.lists(st.sampled_from([1, 2, 3, Unparsed("?", "x")]), min_size=1, max_size=9)


@given(answers=ANSWERS.flatmap(lambda a: st.tuples(st.just(a), st.permutations(a))))
def test_the_order_of_votes_matters_in_ties_only(answers: tuple[list[Any], list[Any]]) -> None:
    one, other = (vote(same) for same in answers)
    counts = Counter(answer for answer in answers[0] if not isinstance(answer, Unparsed))
    assert dict(one.counts) == dict(other.counts) == counts
    assert (one.share, one.unparsed) == (other.share, other.unparsed)
    assert one.share == (max(counts.values()) / counts.total() if counts else 0.0)
    if list(counts.values()).count(max(counts.values(), default=0)) == 1:
        assert one.answer == other.answer
