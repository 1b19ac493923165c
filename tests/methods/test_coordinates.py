"""Programs of published methods stand where their records, written from the papers, say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import graphprog as gp
from graphprog.methods.coordinates import Coordinates, alignment, coordinates

RECORDS = gp.methods.table()
FRAMES = ("adversarial_reprogramming", "blm", "evp", "flm_vp", "ilm_vp", "rlm_vp")
ARGUMENTS: dict[str, dict[str, Any]] = {
    **{name: {"shape": (3, 8, 8)} for name in FRAMES},
    "frame_pattern": {"shape": (3, 8, 8), "size": 16, "width": 2},
    "full_pattern": {"shape": (3, 8, 8), "size": 16},
    "gpf": {"features": 8},
    "graph_prompt": {"at": "convs.1:out"},
    "r2dl": {"words": 7},
    "reprogbert": {"words": 7},
    "trainable_tokens": {"tokens": (1, 2)},
}
ELSEWHERE = {"blackvip", "llama_adapter"}
"""Methods that take other graphs, or names of layers."""


def parts(made: object) -> tuple[Any, ...]:
    if isinstance(made, gp.Program):
        return made.manipulations
    return tuple(made) if isinstance(made, list | tuple) else (made,)


@pytest.mark.parametrize("name", sorted(set(gp.methods.__all__) & set(RECORDS) - ELSEWHERE))
def test_a_method_acts_where_and_how_its_record_says(name: str) -> None:
    record, made = RECORDS[name], getattr(gp.methods, name)(**ARGUMENTS.get(name, {}))
    learned = [one for one in map(coordinates, parts(made)) if one.configuration == "learnable"]
    assert {one.location for one in learned} == set(record.location.split("+"))
    operators = {one.operator for one in learned}
    assert operators <= set(record.operator.split("+"))
    # A prompt that low-rank factors make is one part, and two operators in the survey.
    assert operators == set(record.operator.split("+")) or name == "mpt"


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (gp.Additive(value=gp.Fixed(torch.ones(()))), ("fixed", "input", "additive")),
        (gp.Additive(at="text.embedding"), ("learnable", "embedding", "additive")),
        (gp.Concatenative(at="vision.tokens"), ("learnable", "embedding", "concatenative")),
        (gp.Scale(at="hidden[*]"), ("learnable", "hidden", "parametric")),
        (gp.Prefix(value=gp.TextPrefix((1, 2))), ("fixed", "hidden", "concatenative")),
        (gp.ResizePad(shape=(3, 8, 8)), ("fixed", "input", "parametric")),
        (gp.Instruction("Be brief. "), ("fixed", "input", "concatenative")),
    ],
)
def test_coordinates_of_parts(part: object, expected: tuple[str, str, str]) -> None:
    assert coordinates(part) == Coordinates(*expected)


@pytest.mark.parametrize(
    ("align", "expected"),
    [
        (gp.Identity(), "identity"),
        (gp.FixedMap(3), "structural"),
        (gp.BayesianMap(3, after=gp.LastToken()), "structural+statistical"),
        (gp.LinearHead(3, at="features"), "linear"),
    ],
)
def test_kinds_of_alignments(align: gp.Alignment, expected: str) -> None:
    assert alignment(align) == expected
