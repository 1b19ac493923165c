"""Demonstrations: order, balance, windows, leakage."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphprog.errors import DataError, ProgramError
from graphprog.text import Demonstrations, Template, Window, check_leakage

ARROW = Template("{text} ->{label}")
ROWS = [("a", " x"), ("b", " y"), ("c", " x"), ("d", " x"), ("e", " y")]
QUERY = {"text": "q"}


def shown(**options: Any) -> Demonstrations:
    return Demonstrations([{"text": t, "label": label} for t, label in ROWS], ARROW, **options)


def embed(texts: list[str]) -> np.ndarray[Any, Any]:
    """On a circle by the first letter: the angle to the query ``q`` falls from a to e."""
    angles = {letter: number / 10 for number, letter in enumerate("abcdefgh")}
    turned = [angles.get(text[0], 0.9) for text in texts]
    return np.stack([np.cos(turned), np.sin(turned)], axis=1)


def words(text: str) -> int:
    return len(text.split())


def test_demonstrations_stand_in_front_of_a_query() -> None:
    found = shown(separator="\n", count=2).render(QUERY)
    assert found.text == "a -> x\nb -> y\nq ->"
    assert (found.prefix, found.query) == ("a -> x\nb -> y\n", "q ->")
    assert (found.used, found.dropped) == ((0, 1), 0)


def test_without_demonstrations_the_query_stands_alone() -> None:
    for none in (
        shown(count=0),
        Demonstrations([], ARROW),
        Demonstrations([], ARROW, order="random"),
    ):
        assert none.render(QUERY).text == "q ->"


def test_examples_may_be_given_in_the_order_of_the_fields() -> None:
    assert Demonstrations(ROWS, ARROW) == shown()
    assert shown().records[1] == {"text": "b", "label": " y"}


def test_the_random_order_is_fixed_by_the_seed() -> None:
    orders = [shown(order="random", seed=seed).render(QUERY).used for seed in range(6)]
    assert orders == [shown(order="random", seed=seed).render(QUERY).used for seed in range(6)]
    assert all(sorted(order) == list(range(5)) for order in orders)
    assert len(set(orders)) > 1
    several = shown(order="random").render_all([QUERY, {"text": "r"}])
    assert several[0].used == several[1].used


@pytest.mark.parametrize("kind", ["numpy", "torch", "list"])
def test_the_nearest_stand_last(kind: str) -> None:
    def own(texts: list[str]) -> Any:
        array = embed(texts)
        return {"numpy": array, "torch": torch.tensor(array), "list": array.tolist()}[kind]

    near = shown(order="nearest", count=3)
    assert near.render(QUERY, embed=own).used == (2, 3, 4)
    assert near.render({"text": "a"}, embed=own).used == (2, 1, 0)


def test_examples_are_embedded_once_and_without_their_answers() -> None:
    calls: list[list[str]] = []

    def noted(texts: list[str]) -> Any:
        calls.append(texts)
        return embed(texts)

    shown(order="nearest").render_all([QUERY, {"text": "a"}], embed=noted)
    assert calls == [["a ->", "b ->", "c ->", "d ->", "e ->", "q ->", "a ->"]]


def test_no_queries_and_no_examples() -> None:
    assert Demonstrations([], ARROW, order="nearest").render(QUERY, embed=embed).text == "q ->"
    assert Demonstrations([], ARROW, order="nearest").render_all([], embed=embed) == []
    assert shown().render_all([]) == []


def test_a_vector_of_zeros_is_similar_to_nothing() -> None:
    def own(texts: list[str]) -> Any:
        return [[{"c": 0.0, "a": -1.0}.get(text[0], 1.0)] for text in texts]

    assert shown(order="nearest").render(QUERY, embed=own).used == (0, 2, 1, 3, 4)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda texts: np.zeros(len(texts)), r"shape (6,) for 6 texts; [6, d] is needed"),
        (lambda texts: np.zeros((2, 3)), "shape (2, 3) for 6 texts"),
        (lambda texts: np.full((len(texts), 1), np.nan), "not finite for 'a ->'"),
        (lambda texts: [["a"]], "embed must return an array [n, d] of numbers"),
    ],
)
def test_embeddings_that_are_refused(returned: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        shown(order="nearest").render(QUERY, embed=returned)
    assert said in str(caught.value)


def test_the_nearest_order_needs_an_embedding() -> None:
    with pytest.raises(ProgramError, match="the nearest order needs an embedding"):
        shown(order="nearest").render(QUERY)


def test_balanced_labels() -> None:
    assert shown(balanced=True).render(QUERY).used == (0, 1, 2, 4)
    assert shown(balanced=True, count=2).render(QUERY).used == (0, 1)
    assert shown(balanced=True, count=5).render(QUERY).used == (0, 1, 2, 3, 4)
    near = shown(balanced=True, count=2, order="nearest")
    assert near.render(QUERY, embed=embed).used == (3, 4)
    assert near.render({"text": "a"}, embed=embed).used == (1, 0)


def test_labels_that_cannot_be_balanced() -> None:
    rows = [*ROWS, ("f", " x")]
    with pytest.raises(ProgramError, match="need 3 of each of 2 labels, but ' y' has 2"):
        Demonstrations(rows, ARROW, balanced=True, count=6)


LABELS = st.lists(st.sampled_from(["x", "y", "z"]), max_size=10)
ORDERS = st.sampled_from(["given", "random", "nearest"])


@given(labels=LABELS, order=ORDERS, seed=st.integers(0, 5), keep=st.integers(0, 10))
def test_counts_of_balanced_labels_differ_by_one_at_most(
    labels: list[str], order: Any, seed: int, keep: int
) -> None:
    rows = [("abcdefgh"[i % 8], label) for i, label in enumerate(labels)]
    try:
        some = Demonstrations(
            rows, ARROW, order=order, balanced=True, seed=seed, count=min(keep, len(rows))
        )
    except ProgramError:
        return
    for query in ("a", "q"):  # what could be balanced in one order can be in every
        used = some.render({"text": query}, embed=embed).used
        counts = Counter(labels[index] for index in used)
        assert len(used) == min(keep, len(rows))
        assert not labels or max(counts.values(), default=0) - min(
            counts[label] for label in labels
        ) in (0, 1)


@given(
    labels=LABELS,
    order=ORDERS,
    balanced=st.booleans(),
    limit=st.integers(1, 40),
    reserve=st.integers(0, 3),
)
def test_what_is_rendered_never_exceeds_the_window(
    labels: list[str], order: Any, balanced: bool, limit: int, reserve: int
) -> None:
    rows = [("abcdefgh"[i % 8] + " w" * i, label) for i, label in enumerate(labels)]
    some = Demonstrations(rows, ARROW, order=order, balanced=balanced)
    if reserve >= limit:
        with pytest.raises(ProgramError, match="must be less than the limit"):
            Window(limit, words, reserve)
        return
    window = Window(limit, words, reserve)
    if limit - reserve < 2:
        with pytest.raises(DataError, match="has 2 tokens without demonstrations"):
            some.render(QUERY, embed=embed, window=window)
        return
    whole = some.render(QUERY, embed=embed)
    found = some.render(QUERY, embed=embed, window=window)
    assert words(found.text) + reserve <= limit
    assert len(found.used) + found.dropped == len(whole.used)
    assert [index for index in whole.used if index in found.used] == list(found.used)
    if not balanced:
        assert found.used == whole.used[found.dropped :]
        more = whole.used[found.dropped - 1 :] if found.dropped else ()
        longer = dataclasses.replace(some, examples=[some.examples[i] for i in more], order="given")
        assert not more or words(longer.render(QUERY).text) + reserve > limit


def test_whole_demonstrations_are_dropped_from_the_front() -> None:
    window = Window(limit=9, count_tokens=words, reserve=1)
    found = shown().render(QUERY, window=window)
    assert (found.used, found.dropped) == ((3, 4), 3)
    assert found.text == "d -> x\n\ne -> y\n\nq ->"
    assert shown(balanced=True).render(QUERY, window=window).used == (2, 4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"order": "best"}, "order must be one of given, random, nearest"),
        ({"count": 6}, "count is 6, but there are 5 examples"),
        ({"count": -1}, "count must be an integer of at least 0"),
        ({"count": True}, "count must be an integer"),
        ({"seed": "a"}, "seed must be an integer"),
        ({"balanced": 1}, "balanced must be a bool"),
        ({"separator": None}, "separator must be text"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ProgramError) as caught:
        shown(**options)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([{"text": "a", "label": "x"}, {"text": "b"}], "example 1: an example has no 'label'"),
        ([{"text": "a", "label": "x", "id": "3"}], "example 0: an example has 'id'"),
        ([("a", "x", "y")], "example 0 has 3 texts, but the template has 2 fields: text, label"),
        ([("a", 1)], "example 0: field 'label' of an example is 1"),
        (["a"], "example 0: an example must map fields to texts"),
        ("ab", "examples must be a list of mappings"),
    ],
)
def test_examples_that_are_refused(examples: Any, said: str) -> None:
    with pytest.raises(ProgramError) as caught:
        Demonstrations(examples, ARROW)
    assert said in str(caught.value)


def test_a_template_is_needed() -> None:
    template: Any = "{text} ->{label}"
    with pytest.raises(ProgramError, match="template must be a Template"):
        Demonstrations([], template)


def test_leaking_test_examples_are_named() -> None:
    check_leakage(shown(), [QUERY, {"text": "ab"}])
    with pytest.raises(DataError) as caught:
        check_leakage(shown(), [QUERY, {"text": "\tA "}, {"text": "E", "label": " x"}])
    assert "2 of 3 test examples are demonstrations" in str(caught.value)
    assert "test example 1 is demonstration 0: '\\tA  ->'" in str(caught.value)
    assert "test example 2 is demonstration 4: 'E ->'" in str(caught.value)


def test_only_the_first_leaks_are_listed() -> None:
    with pytest.raises(DataError, match="and 2 more"):
        check_leakage(shown(), [{"text": "a"}] * 7)


def test_test_examples_that_lack_a_field() -> None:
    with pytest.raises(DataError, match="has no 'text'"):
        check_leakage(shown(), [{"label": "x"}])


def test_without_fields_before_the_answer_nothing_leaks() -> None:
    words_alone = Demonstrations([{"word": "a"}], Template("A word:{word}"))
    check_leakage(words_alone, [{"word": "a"}])
