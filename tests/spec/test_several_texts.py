"""Where several texts are meant, one text is refused: it would be taken apart into letters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import graphprog as gp
from graphprog.alignments.verbalizers.label_tokens import LabelTokens
from graphprog.errors import GraphprogError
from graphprog.passes import Editor
from tests.models.zoo import captured

TEMPLATE = gp.Template("{text} -> {label}")
SHOWN = gp.Demonstrations([("warm", "good")], TEMPLATE)
CALLS: dict[str, Callable[[], Any]] = {
    "labels must be several texts, not '5 6 7'": lambda: gp.Contract(labels="5 6 7"),
    "labels must be several texts, not 'ab'": lambda: LabelTokens((((1,),), ((2,),)), labels="ab"),
    "labels must be several texts, not 'cat dog'": lambda: mapped().plot(labels="cat dog"),
    "source_labels must be several texts, not 'x'": lambda: mapped().plot(source_labels="x"),
    "hint 'labels' is 'abc'": lambda: gp.capture(
        torch.nn.Linear(2, 2), (torch.zeros(2, 2),), hints={"labels": "abc"}
    ),
    "answers must be several texts, not 'yes'": lambda: gp.text.per_byte(
        torch.full((3, 1), -1.0), torch.ones(3, 1, dtype=torch.bool), "yes"
    ),
    "answers must be several, not '70'": lambda: gp.text.vote("70"),
    "fields must be several texts, not 'text'": lambda: gp.text.load_demos("x", fields="text"),
    "outputs must be several texts, not 'ab'": lambda: gp.losses.Span(None, outputs="ab"),
    "test examples must be a list": lambda: gp.text.check_leakage(SHOWN, {"text": "warm"}),
    "examples must be a list": lambda: gp.Demonstrations("warm good", TEMPLATE),
    "answers must map labels to words": lambda: gp.Score("yes no"),
    "words must map labels to words": lambda: gp.Verbalizer("yes no"),
    "input_roles must map names": lambda: gp.Concatenative(at="tokens", length=2, input_roles="ab"),
    "input_roles must map names of inputs": lambda: gp.Prefix(length=2, input_roles=["ab"]),
    "input_roles must map names of inputs to": lambda: gp.generate(
        captured("residual")[1], ["a"], input_roles="ab"
    ),
    "stop='end' is not a sequence": lambda: gp.generate(captured("residual")[1], ["a"], stop="end"),
    "interfaces must be several, not 'logits'": lambda: captured("residual")[1].evaluate(
        "logits", (torch.zeros(2, 3, 16, 16),)
    ),
    "outputs must be several texts, not 'relu'": lambda: captured("residual")[1].executable("relu"),
}


def mapped() -> Any:
    program = gp.Program(align=gp.FixedMap(classes=2))
    return gp.compile(captured("residual")[1], program).alignment


@pytest.mark.parametrize("message", CALLS)
def test_one_text_is_not_several(message: str) -> None:
    with pytest.raises(GraphprogError) as failure:
        CALLS[message]()
    assert message in str(failure.value)


def test_where_one_text_has_one_meaning_it_is_one() -> None:
    error = gp.errors.PassError("it failed", "try this")  # type: ignore[arg-type]
    assert error.remedies == ("try this",)
    assert gp.Parametric(torch.nn.Linear(2, 2), reads="input").reads == ("input",)
    assert gp.Verbalizer({"a": "x", "b": "y"}, content_free="N/A").content_free == ("N/A",)
    edit = Editor(captured("residual")[1])
    edit.drop_sites("head:in")
    assert "head:in" not in edit.sites
    assert gp.initializers.text(lambda text: [len(text)], "whole").ids == (5,)
