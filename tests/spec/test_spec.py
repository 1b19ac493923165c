from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphprog.errors import FileError, ProgramError
from graphprog.spec.grammar import MAX_DEPTH
from graphprog.spec.registry import Spec, format_spec, from_json, parse_spec, spec, to_json
from tests.support.sample_specs import Branch, Leaf, bits


@spec("test-strict")
@dataclasses.dataclass(frozen=True)
class Strict(Spec):
    """Checks of its own that fail in every way a class may choose."""

    value: Any = None

    def __post_init__(self) -> None:
        if self.value == "refuse":
            raise ProgramError("refused")
        if self.value is not None:
            raise {"key": KeyError, "index": IndexError}.get(self.value, RuntimeError)("broken")


TENSORS = st.sampled_from(
    [
        torch.zeros(2, 3),
        torch.tensor([math.nan, -0.0, math.inf]),
        torch.tensor(7),
        torch.zeros(0, 2, dtype=torch.bool),
    ]
)
LEAVES = st.builds(
    Leaf,
    text=st.text(),
    count=st.integers(),
    scale=st.none() | st.floats(),
    on=st.booleans(),
    by=st.sampled_from(["rows", "columns"]),
    tensor=st.none() | TENSORS,
)
SPECS = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        Branch,
        first=inner,
        rest=st.lists(inner, max_size=3).map(tuple),
        numbers=st.lists(st.integers(), max_size=3).map(tuple),
        nested=st.lists(st.tuples(st.floats(), st.text()), max_size=2).map(tuple),
        leaves=st.lists(LEAVES, max_size=2).map(tuple),
    ),
    max_leaves=8,
)


@given(original=SPECS)
def test_specs_travel_as_text(original: Spec) -> None:
    tensors: dict[str, torch.Tensor] = {}
    text = format_spec(original, tensors)
    parsed = parse_spec(text, tensors)
    assert bits(parsed) == bits(original)
    assert format_spec(parsed) == text == str(original)


@given(original=SPECS)
def test_specs_travel_as_json(original: Spec) -> None:
    tensors: dict[str, torch.Tensor] = {}
    document = json.dumps(to_json(original, tensors, "program"), allow_nan=False)
    assert all(name.startswith("program.") for name in tensors)
    assert bits(from_json(json.loads(document), tensors)) == bits(original)


def test_text_leaves_out_defaults() -> None:
    assert str(Leaf()) == "test-leaf"
    assert str(Leaf(count=4, scale=-math.inf)) == "test-leaf{count=4 scale=-Infinity}"
    named = Branch(Leaf(tensor=torch.zeros(2)), numbers=())
    assert str(named) == "test-branch{first=test-leaf{tensor=@first.tensor} numbers=[]}"


def test_a_tensor_inside_a_default_is_compared_without_an_error() -> None:
    pair = torch.zeros(2)
    tree = to_json(Branch(Leaf(), leaves=(Leaf(text="default", tensor=pair),)), {})
    assert tree["leaves"] == [
        {"kind": "test-leaf", "text": "default", "tensor": {"tensor": "leaves.0.tensor"}}
    ]


def test_white_space_is_free() -> None:
    text = ' test-branch {\n first = test-leaf { count\t=4 } numbers=[ 1\n2 3]nested=[[1.5"a"]] } '
    parsed = parse_spec(text)
    assert (parsed.first.count, parsed.numbers, parsed.nested) == (4, (1, 2, 3), ((1.5, "a"),))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "position 0: expected a value"),
        ("test-leaf{count=}", "position 16: expected a value"),
        ("test-leaf{count 3}", "position 15: expected '='"),
        ("test-leaf{count=3", "position 17: expected '}'"),
        ("test-branch{numbers=[1 2", "position 24: expected ']'"),
        ("test-leaf test-leaf", "position 9: expected the end"),
        ("test-leaf{count=3 count=3}", "'count' appears twice"),
        ("test-leaf{kind=3}", "'kind' appears twice"),
        ("test-leaf{color=3}", "unknown field 'color'; known: text, count"),
        ("no-such-kind{a=1}", "unknown spec kind 'no-such-kind'"),
        ("test-leaf{tensor=@absent}", "tensor 'absent' is named by the spec but not stored"),
        ('test-leaf{text="a\nb"}', "is not a value"),
        ('test-leaf{text="\\x"}', "is not a value"),
        ("test-leaf{count=007}", "is not a value"),
        ("test-leaf{count=" + "9" * 5000 + "}", "is not a value"),
        ("test-leaf{count=1.5}", "count is 1.5, expected int"),
        ("test-leaf{count=true}", "count is True, expected int"),
        ("test-leaf{on=1}", "on is 1, expected bool"),
        ('test-leaf{by="diagonals"}', "by is 'diagonals', expected Literal"),
        ("test-leaf{text=null}", "text is None, expected str"),
        ("test-leaf{tensor=[1 2]}", "expected torch.Tensor"),
        ("test-branch{first=3}", "first is 3, expected Leaf"),
        ("test-branch{first=test-strict}", "expected Leaf"),
        ("test-branch{first=test-leaf numbers=[1 null]}", "numbers is"),
        ("test-branch{first=test-leaf nested=[[1.5]]}", "nested is"),
        ("test-branch", "required"),
        ('test-strict{value="key"}', "test-strict: 'broken'"),
        ('test-strict{value="other"}', "test-strict: broken"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "nested deeper"),
        ("[" * 100_000, "nested deeper"),
        ("\u0663", "is not a value"),
        ("\x00", "expected a value"),
    ],
)
def test_text_outside_the_grammar(text: str, said: str) -> None:
    with pytest.raises(FileError) as caught:
        parse_spec(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({}, "unknown spec kind None"),
        ({"kind": ["test-leaf"]}, "unknown spec kind ['test-leaf']"),
        ({"tensor": ["a"]}, "tensor ['a']"),
        ({"tensor": None}, "tensor None"),
        ({"number": "1"}, "number '1'"),
        ({"number": {}}, "number {}"),
        ({"kind": "test-leaf", "__class__": "x"}, "unknown field '__class__'"),
        ({"kind": "test-leaf", "text": {"kind": "test-leaf"}}, "text is test-leaf"),
    ],
)
def test_hostile_trees(tree: Any, said: str) -> None:
    with pytest.raises(FileError) as caught:
        from_json(tree, {})
    assert said in str(caught.value).replace("Leaf(", "test-leaf(")


def test_what_a_spec_itself_refuses_stays_its_own_error() -> None:
    with pytest.raises(ProgramError, match="refused"):
        parse_spec('test-strict{value="refuse"}')


@pytest.mark.parametrize("kind", ["", "Leaf", "two words", "true", "null", "a--b", "-a", "a{", "3"])
def test_kinds_that_text_could_not_hold(kind: str) -> None:
    with pytest.raises(ProgramError, match="cannot be the kind"):
        spec(kind)(Leaf)
    assert Leaf.kind == "test-leaf"


def test_a_kind_belongs_to_one_class() -> None:
    with pytest.raises(ProgramError, match=r"'test-leaf' is taken by .*Leaf"):
        spec("test-leaf")(Branch)
