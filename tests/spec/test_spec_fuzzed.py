from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from typing import Any

import torch
from hypothesis import example, given
from hypothesis import strategies as st

from graphprog.errors import FileError, ProgramError
from graphprog.spec.registry import Spec, format_spec, from_json, parse_spec, to_json
from graphprog.spec.validation import annotations_of
from tests.support.sample_specs import bits


def every_kind() -> dict[str, type[Spec]]:
    """All specs of the package by kind."""
    for family in ("alignments", "manipulations", "passes"):
        package = importlib.import_module(f"graphprog.{family}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    pending, found = [Spec], {}
    while pending:
        pending += (cls := pending.pop()).__subclasses__()
        found[cls.kind] = cls
    return {kind: cls for kind, cls in found.items() if kind}


KINDS = every_kind()


def test_annotations_of_every_spec_can_be_resolved() -> None:
    assert {"bayesian-map", "test-leaf"} <= KINDS.keys()
    for kind, cls in KINDS.items():
        assert annotations_of(cls), kind


def parse_or_refuse(text: str) -> None:
    """No text may make anything but these errors; what is read can be printed and read again."""
    try:
        value = parse_spec(text, {"a": torch.zeros(2, 2)})
    except (FileError, ProgramError):
        return
    tensors: dict[str, torch.Tensor] = {}
    assert bits(parse_spec(format_spec(value, tensors), tensors)) == bits(value)


@given(text=st.text())
def test_any_text(text: str) -> None:
    parse_or_refuse(text)


PIECES = st.sampled_from([*sorted(KINDS), *"{}[]=;@-", "@a", '"', '"a"', " ", "\n", "1e999", "NaN"])
NAMES = st.sampled_from(sorted({f.name for cls in KINDS.values() for f in dataclasses.fields(cls)}))


@example(pieces=["@a"])
@given(pieces=st.lists(PIECES | NAMES | st.from_regex(r"-?\d+(\.\d+)?")))
def test_any_tokens(pieces: list[str]) -> None:
    parse_or_refuse("".join(pieces))


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | NAMES
TREES = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries({"tensor": st.just("a") | inner})
        | st.fixed_dictionaries({"number": st.just("NaN") | inner})
        | st.sampled_from(sorted(KINDS)).flatmap(lambda kind: trees_of(kind, inner))
        | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)


def trees_of(kind: str, inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Trees of a kind with any values in some of its own fields."""
    names = [field.name for field in dataclasses.fields(KINDS[kind])]
    fields = st.dictionaries(st.sampled_from(names), inner, max_size=4) if names else st.just({})
    return fields.map(lambda found: {"kind": kind, **found})


@given(tree=TREES)
@example(tree={"kind": "random-map", "classes": 2**70})
def test_any_tree(tree: Any) -> None:
    try:
        value = from_json(tree, {"a": torch.zeros(2, 2)})
    except (FileError, ProgramError):
        return
    tensors: dict[str, torch.Tensor] = {}
    assert bits(from_json(to_json(value, tensors), tensors)) == bits(value)
