"""Configurations: all mistakes at once, with their lines; the schema."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from pathlib import Path
from typing import get_args

import pytest

import graphprog as gp
from graphprog.cli.config.positions import line_of, positions
from graphprog.cli.config.read import read_configuration, schema_text
from graphprog.cli.config.schema import Train
from graphprog.errors import FileError
from graphprog.train.recipe import MEMORIES, OPTIMIZERS, PRECISIONS, REUSES, SCHEDULES, Recipe
from tests.support.environments import ROOT, run

MISTAKEN = """\
# a comment
model = "tim:resnet18"
moddel = 3

[method]
name = "bml"

[data]
train = "sklearn:digit"
validation = true
label = '''
a text
[train]
'''

[[data.augment]]
name = "albumentations:Rotat"

[[data.augment]]
name = "albumentations:Rotate"
options = {limitt = 3}

[train]
epochs = 0
optimizer = "adan"
lr = "x"
metrics = [
  "macro_f1",
  "aurok",
]
patience = 2
"""


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.graph").touch()


def found(text: str, *changes: str) -> list[str]:
    """The mistakes of a configuration, one a line."""
    Path("run.toml").write_text(text, encoding="utf-8")
    with pytest.raises(FileError) as raised:
        read_configuration(Path("run.toml"), changes)
    head, *lines = str(raised.value).splitlines()
    assert head == f"run.toml: {len(lines)} mistake{'s' if len(lines) > 1 else ''}"
    return [line.strip() for line in lines]


def test_all_mistakes_are_shown_with_lines_and_what_was_meant() -> None:
    lines = found(MISTAKEN, "train.seed=4")
    expected = [
        "--set train.seed=4: train.seed: unknown key",
        "line 2: model: 'tim:resnet18' is not the name of a model; did you mean timm?",
        "line 3: moddel: unknown key; did you mean model?",
        "line 6: method.name: there is no method 'bml'; did you mean blm?",
        "line 9: data.train: scikit-learn brings no 'digit'; did you mean digits?",
        "line 10: data.validation: must be text in quotes or a number, not True",
        "line 17: data.augment[0].name: albumentations has no transform Rotat; did you mean",
        "line 20: data.augment[1].name: albumentations:Rotate takes no 'limitt'; did you mean",
        "line 24: train.epochs: must be at least 1, not 0",
        "line 25: train.optimizer: must be one of adam, adamw, sgd, not 'adan'; did you mean",
        "line 26: train.lr: must be a number, not 'x'",
        "line 27: train.metrics[1]: there is no metric 'aurok'; did you mean auroc?",
    ]
    assert len(lines) == len(expected)
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)


def test_a_mistake_is_one_message_of_the_executable(tmp_path: Path) -> None:
    Path("run.toml").write_text('model = "net.graph"\n[data]\ntrian = "x"\n', encoding="utf-8")
    done = run([sys.executable, "-m", "graphprog", "train", "run.toml"], tmp_path, ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == "error: run.toml: 2 mistakes"
    assert "line 3: data.trian: unknown key; did you mean train?" in done.stderr
    assert "line 2: data.train: is missing" in done.stderr


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ('[data]\ntrain = "absent.csv"', "line 3: data.train: absent.csv: no such file"),
        (
            '[data]\ntrain = "sklearn:digits"\ntest = 0.9\nvalidation = 0.1',
            "line 5: .* none is lef",
        ),
        (
            '[data]\ntrain = "sklearn:digits"\nvalidation = 0\n[train]\npatience = 3',
            "line 6: train.patience: needs validation data",
        ),
        (
            '[data]\ntrain = "sklearn:digits"\ntest = "sklearn:digits"',
            "line 4: data.test: sklearn:digits is the data of train already",
        ),
        (
            '[data]\ntrain = "sklearn:digits"\n[method]\nname = "ilm"\noptions = {evry = 2}',
            "line 6: method.options.evry: ilm has no such option; did you mean every?",
        ),
        (
            '[data]\ntrain = "t.csv"\ninput = "txt"',
            "line 4: data.input: t.csv: has no column 'txt'; did you mean text?",
        ),
        (
            '[data]\ntrain = "t.csv"\nlabel = "lbl"',
            "line 4: data.label: t.csv: has no column 'lbl'",
        ),
        (
            '[data]\ntrain = "sklearn:digits"\n[train]\nloss = "mse"',
            "line 1: method.name: blm maps classes, but the labels are numbers",
        ),
        (
            '[data]\ntrain = "sklearn:digits"\n[method]\nprogram = "progrm{}"',
            "line 5: method.program: unknown spec kind 'progrm'",
        ),
    ],
)
def test_what_is_named_is_checked(sections: str, message: str) -> None:
    Path("t.csv").write_text("text,label\na,b\n", encoding="utf-8")
    (line,) = found(f'model = "net.graph"\n{sections}\n')
    assert re.match(message, line)


def test_changes_come_after_the_file() -> None:
    text = 'model = "net.graph"\n[data]\ntrain = "sklearn:digits"\n[train]\nepochs = 3\n'
    Path("run.toml").write_text(text, encoding="utf-8")
    changes = ["train.epochs=7", "method.name=ilm", "data.validation=0.1", "data.labels=['a','b']"]
    read = read_configuration(Path("run.toml"), changes)
    assert (read.train.epochs, read.method.name, read.data.validation) == (7, "ilm", 0.1)
    assert read.data.labels == ["a", "b"]
    with pytest.raises(FileError, match="--set epochs: not key=value"):
        read_configuration(Path("run.toml"), ["epochs"])


def test_lines_of_keys() -> None:
    lines = positions(MISTAKEN)
    assert lines["train", "metrics"] == 27
    assert lines["data", "augment", 1, "options", "limitt"] == 21
    assert line_of(("train", "schedule"), lines) == 23  # of the table


def test_the_schema_has_the_arguments_of_fit() -> None:
    """Same names, same defaults, same choices."""
    recipe = {one.name: one.default for one in dataclasses.fields(Recipe) if one.name != "seed"}
    own = Train().model_dump()
    assert own.keys() == recipe.keys()
    assert {**own, "metrics": ()} == recipe
    assert recipe.keys() <= inspect.signature(gp.fit).parameters.keys()
    choices = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
    choices |= {"precision": dict.fromkeys(PRECISIONS), "reuse": dict.fromkeys(REUSES)}
    choices |= {"memory": dict.fromkeys(MEMORIES)}
    for name, known in choices.items():
        assert set(get_args(Train.model_fields[name].annotation)) == known.keys()


def test_the_published_schema_is_that_of_the_package(tmp_path: Path) -> None:
    published = ROOT / "docs" / "configuration.schema.json"
    assert published.read_text(encoding="utf-8") == schema_text()
    schema = json.loads(schema_text())
    assert schema["$defs"]["Train"]["properties"]["epochs"]["minimum"] == 1
    done = run([sys.executable, "-m", "graphprog", "schema"], tmp_path, ROOT)
    assert done.stdout == schema_text()
