"""Plots of programs: prompts by their similarity and nearest tokens, mappings with their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import graphprog as gp
from graphprog.analysis.nearest_tokens import nearest_tokens
from graphprog.errors import ProgramError
from tests.models.deployed_tasks import image_graph, text_graph


class Letters:
    """A tokenizer that only decodes: token 3 is d."""

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(ord("a") + number) for number in ids)


@pytest.fixture(scope="module")
def text() -> gp.Graph:
    return text_graph()


@pytest.fixture(scope="module")
def images() -> gp.Graph:
    return image_graph()


def prompted(graph: gp.Graph) -> gp.ReprogrammedModel:
    """A prompt whose entries are three embeddings of the source, one of them backwards."""
    words = graph.weights.source.get_parameter("words.weight")
    entries = torch.stack([words[3], words[7] * 2, -words[3]]).detach()
    part = gp.Concatenative(at="tokens", length=3, value=gp.Fixed(entries), tables="zeros")
    return gp.compile(graph, gp.Program([part]))


def test_a_prompt_shows_similarities_and_nearest_tokens(text: gp.Graph, tmp_path: Path) -> None:
    drawn = prompted(text).program.plot(tmp_path / "prompt.png")
    assert (tmp_path / "prompt.png").stat().st_size > 0
    axis = drawn.axes[0]
    shown = axis.images[0].get_array()
    assert shown.shape == (3, 3)
    assert shown[0, 2] == pytest.approx(-1)
    assert shown[1, 1] == pytest.approx(1)
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert [name[:16] for name in names[:2]] == ["0  token 3 1.00 ", "1  token 7 1.00 "]
    assert axis.get_xlabel() == "entry"
    assert drawn.axes[1].get_ylabel() == "cosine similarity"


def test_tokens_have_the_texts_of_the_tokenizer(text: gp.Graph) -> None:
    graph = dataclasses.replace(text, tokenizer=Letters())
    table = graph.weights.source.get_parameter("words.weight")
    found = nearest_tokens(graph, table[[3, 20]], 1)
    assert [(text, round(value, 4)) for ((text, value),) in found] == [("'d'", 1), ("'u'", 1)]


def test_entries_that_no_table_has_are_plotted_without_names(images: gp.Graph) -> None:
    part = gp.Concatenative(at="input", axis=2, length=2)
    task = gp.compile(images, gp.Program([part, gp.Additive(at="features")]))
    assert task.program.prompts() == {}  # rows of pixels [C, 2, W] are not vectors
    assert len(task.program.plot().axes) == 1
    with pytest.raises(ProgramError, match="adds no pattern and inserts no prompt"):
        gp.compile(images, gp.Program(align=gp.FixedMap(2))).program.plot()


def test_a_mapping_has_the_names_of_contract_source_and_interface(images: gp.Graph) -> None:
    labels = ("cat", "dog")
    contract = gp.Contract(labels=labels)
    sources = tuple(f"class {number}" for number in range(24))
    graph = dataclasses.replace(images, hints={"labels": sources})
    task = gp.compile(graph, gp.Program(align=gp.FixedMap(2), contract=contract))
    axis = task.alignment.plot().axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == list(labels)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["class 0", "class 1"]
    assert axis.get_xlabel() == "source class"
    head = gp.LinearHead(2, at="features")
    axis = gp.compile(graph, gp.Program(align=head, contract=contract)).alignment.plot().axes[0]
    assert axis.get_xlabel() == "entry of features"
    assert axis.get_yticklabels()[1].get_text() == "dog"
    assert axis.get_xticklabels()[0].get_text().isdigit()
