"""One program of every kind on sources of fixed weights, kept as files of format version 1.

    python -m tests.support.version_1 [name ...]

writes files that are not there yet. Files that are there stay as they are: that they can still be
read is what the test of them shows.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.alignments.verbalizers.label_tokens import LabelTokens
from graphprog.manipulations import Adapter, Conditional, Mixture, Projection
from tests.models import kept_source
from tests.models.text_models import REVIEWS, TEMPLATE, tokenizer
from tests.models.tiny_models import Compared, ComparedRowByRow, Located

FOLDER = Path(__file__).resolve().parents[1] / "data" / "v1"
GRAPH = FOLDER / "words.graph"
"""The source of programs of words, as a graph file."""

OUTPUTS = FOLDER / "outputs.json"
"""What each program gave when it was written."""

_ROWS = {0: "batch"}
_AXES = {"ids": {0: "batch", 1: "sequence"}}
_IDS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 0]])
_SERIES = torch.linspace(-1, 1, 48).reshape(2, 24)
_IMAGES = torch.linspace(0, 1, 600).reshape(2, 3, 10, 10)
_OTHER = torch.linspace(-1, 1, 40).reshape(2, 5, 4)
_CLASSES = {"good": " good", "bad": " bad"}
_TWO_ROWS = gp.Fixed(torch.linspace(-1, 1, 8).reshape(2, 4))
_FIRST_WORDS = gp.Learnable(gp.initializers.Tokens((1, 2)))


class Writer(Located):
    """Scores the next word, of a real vocabulary."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.table = nn.Embedding(words, 4)
        self.places = nn.Embedding(96, 4)
        self.head = nn.Linear(4, words)


@functools.cache
def graph_of(source: str) -> gp.Graph:
    """A source of programs; its weights come from no random generator."""
    if source == "image":
        return kept_source.captured()
    if source == "words":
        return gp.capture(kept_source.wave(Located()), (), {"ids": _IDS}, _AXES)
    if source == "text":
        reader = tokenizer("gpt2")
        model = kept_source.wave(Writer(len(reader)))
        return gp.capture(model, (), {"ids": _IDS}, _AXES, tokenizer=reader)
    if source == "four-words":
        return gp.capture(kept_source.wave(Located()), (), {"ids": _IDS[:, :4]}, {"ids": _ROWS})
    if source == "guided":
        call = {"x": torch.zeros(2, 6), "ids": _IDS}
        axes = dict.fromkeys(call, _ROWS)
        return gp.capture(kept_source.wave(ComparedRowByRow()), (), call, axes)
    axes = {"x": _ROWS, "ids": {0: "texts", 1: "length"}}
    call = {"x": torch.zeros(2, 6), "ids": _IDS[[0, 1, 0], :4]}
    return gp.capture(kept_source.wave(Compared()), (), call, axes)


def _encoder() -> nn.Module:
    layers = nn.Conv2d(3, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return kept_source.wave(nn.Sequential(*layers))


def _inserted(value: Any, **options: Any) -> gp.Concatenative:
    return gp.Concatenative(at="tokens", length=2, value=value, **options)


_HEAD = gp.LinearHead(3, at="logits", pool="mean")
_MODULES = [
    gp.Scale(at="first:out"),
    Projection(at="features"),
    Mixture(at="features", count=2),
    Adapter(at="features", width=2),
    Conditional("features", at="head:out", reduction=2),
]

PROGRAMS: Mapping[str, tuple[str, gp.Program, tuple[Any, ...]]] = {
    "image": ("image", kept_source.PROGRAM, (_IMAGES[:, :1, :6, :6],)),
    "image-modules": ("image", gp.Program(_MODULES, align=gp.RandomMap(3)), (_IMAGES,)),
    "image-masks": (
        "image",
        gp.Program(
            [gp.SampleMask(layers=5, patch=2), gp.Additive(mask=gp.masks.patch(3))],
            align=gp.FixedMap(sources=(3, 7)),
        ),
        (_IMAGES,),
    ),
    "image-grid": (
        "image",
        gp.Program(
            [gp.ImageGrid((3, 4, 4), examples=gp.Fixed(_IMAGES[None, :, :, :4, :4]), gap=1)],
            align=gp.FrequencyMap(3),
        ),
        (_IMAGES[:, :, :4, :4],),
    ),
    "parametric": (
        "image",
        gp.Program([gp.Parametric(nn.Linear(4, 4), at="features")], align=gp.IterativeMap(3)),
        (_IMAGES,),
    ),
    "generated": (
        "image",
        gp.Program([gp.Generated((0.0, 1.0), _encoder(), channels=4)]),
        (_IMAGES,),
    ),
    "inserted": (
        "words",
        gp.Program(
            [
                _inserted(gp.Learnable(gp.initializers.Vocabulary()), name="common"),
                _inserted(gp.Learnable(gp.initializers.Given(_TWO_ROWS.tensor)), name="given"),
                _inserted(gp.Learnable(gp.initializers.Activations((_IDS,))), name="seen"),
                _inserted(gp.entries.Shared("given"), name="shared"),
                _inserted(_TWO_ROWS, name="fixed"),
                gp.Replacement(at="query:in", length=2, init="zeros"),
            ],
            align=_HEAD,
        ),
        (_IDS,),
    ),
    "conditioned": (
        "guided",
        gp.Program([_inserted(gp.conditioning.Conditioned("look:out", reduction=2))]),
        (torch.linspace(-1, 1, 12).reshape(2, 6), _IDS),
    ),
    "reparameterized": (
        "words",
        gp.Program(
            [
                _inserted(gp.reparameterized.MLP(hidden=2), name="mlp"),
                _inserted(gp.reparameterized.LSTM(hidden=2), name="lstm"),
                _inserted(gp.reparameterized.LowRank(rank=1, start=_FIRST_WORDS), name="low"),
                _inserted(gp.reparameterized.Subspace(size=3, start=_FIRST_WORDS), name="sub"),
                gp.Replacement(at="key:in", length=2, value=gp.entries.Derived("mlp")),
            ],
            align=_HEAD,
        ),
        (_IDS,),
    ),
    "prefix": ("words", gp.Program([gp.Prefix(length=2)], align=gp.LastToken()), (_IDS,)),
    "prefix-gated": ("words", gp.Program([gp.Prefix(length=2, gates="each")]), (_IDS,)),
    "adaption-prompt": (
        "words",
        gp.Program(
            [
                gp.AdaptionPrompt(
                    at="head:in",
                    queries="query:out",
                    keys=("source.key.weight",),
                    values=("source.key.weight",),
                    heads=2,
                ),
                gp.TrainableLayer(at="head:out"),
            ],
            align=gp.Slice({1: (-2, None)}),
        ),
        (_IDS,),
    ),
    "interventions": (
        "words",
        gp.Program(
            [
                gp.Ablation(at="tokens", value=gp.Fixed(torch.tensor([1.0])), units=1),
                gp.Subspace(2, at="tokens", positions="0:2,-1:"),
                gp.Subspace(1, at="tokens", donor="other", name="exchanged"),
                gp.Swap(at="tokens", donor="other", positions="mask:where"),
                gp.Scale(at="tokens", value=gp.Fixed(torch.tensor(0.5)), positions="last"),
            ],
            align=_HEAD,
        ),
        (_IDS, _OTHER, _IDS > 6),
    ),
    "conditional-steering": (
        "words",
        gp.Program(
            [
                gp.ConditionalSteering(
                    gp.Learnable("normal", shape=(4,)), gp.Fixed(torch.ones(4)), 0.5, at="tokens"
                ),
            ],
            align=_HEAD,
        ),
        (_IDS,),
    ),
    "layer-updates": (
        "words",
        gp.Program(
            [
                gp.LowRankUpdate(at="query", rank=2),
                gp.LowRankUpdate(at="key", rank=2, decomposed=True),
                gp.VectorUpdate(at="key", rank=3),
                gp.WeightUpdate(at="head:bias"),
                gp.TokenUpdate((2, 6), ids="input"),
            ]
        ),
        (_IDS,),
    ),
    "vocabulary-map": ("words", gp.Program([gp.VocabularyMap(6)], align=_HEAD), (_IDS % 6,)),
    "patch-tokens": (
        "four-words",
        gp.Program([gp.PatchTokens(gp.patches.ImagePatches((3, 4, 4), 2))], align=_HEAD),
        (_IMAGES[:, :, :4, :4],),
    ),
    "prototypes": (
        "words",
        gp.Program(
            [gp.Prototypes(gp.patches.SeriesPatches(8, 4), count=3, width=2, heads=2, keys=2)],
            align=_HEAD,
        ),
        (_SERIES,),
    ),
    "constant-inputs": (
        "compared",
        gp.Program([gp.ConstantInputs({"ids": _IDS})]),
        (torch.linspace(-1, 1, 12).reshape(2, 6),),
    ),
    "text-prefix": (
        "text",
        gp.Program([gp.Prefix(value=gp.TextPrefix((5, 6, 7)))], align=gp.LastToken()),
        (_IDS,),
    ),
    "verbalizer": (
        "text",
        gp.Program(
            [gp.Instruction("Good or bad?"), gp.Demonstrations(REVIEWS[:2], TEMPLATE)],
            align=gp.Verbalizer(_CLASSES),
        ),
        (_IDS,),
    ),
    "label-tokens": (
        "text",
        gp.Program(align=LabelTokens((((5,),), ((6,), (7,))), calibrated=True)),
        (_IDS,),
    ),
    "score": (
        "text",
        gp.Program([gp.Instruction("Good or bad?")], align=gp.Score(_CLASSES)),
        ("a funny film",),
    ),
}
"""A source, a program and inputs by the name of a file."""

MODULES: Mapping[str, Callable[[], dict[str, nn.Module]]] = {
    "parametric": lambda: {"parametric": nn.Linear(4, 4)},
    "generated": lambda: {"generated": _encoder()},
}
"""Modules of the user's that a file names and does not hold."""


def trained(name: str) -> gp.ReprogrammedModel:
    """A task whose parameters are numbers that no random generator made."""
    source, program, _ = PROGRAMS[name]
    if name == "image":
        return kept_source.trained(graph_of(source))
    task = gp.compile(graph_of(source), program, seed=1)
    kept_source.wave(task.program, 0.25)
    return task


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.safetensors"


def load(name: str) -> gp.ReprogrammedModel:
    modules = MODULES[name]() if name in MODULES else None
    return gp.load(path_of(name), graph_of(PROGRAMS[name][0]), modules)


def outputs_of(name: str, task: gp.ReprogrammedModel) -> Tensor:
    inputs = PROGRAMS[name][2]
    with torch.no_grad():
        if isinstance(inputs[0], str):
            return task.score(list(inputs))
        result = task(*inputs)
    return result if isinstance(result, Tensor) else next(iter(result.values()))


def write(name: str) -> None:
    """Write a file that is missing, and what its program gives."""
    task = trained(name)
    gp.save(task, path_of(name), resume=True)
    kept = json.loads(OUTPUTS.read_text(encoding="utf-8")) if OUTPUTS.exists() else {}
    kept[name] = outputs_of(name, task).double().tolist()
    OUTPUTS.write_text(json.dumps(dict(sorted(kept.items()))) + "\n", encoding="utf-8")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    if not GRAPH.exists():
        graph_of("words").save(GRAPH)
    for wanted in sys.argv[1:] or PROGRAMS:
        if not path_of(wanted).exists():
            write(wanted)
