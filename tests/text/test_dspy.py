"""Demonstrations in DSPy's JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graphprog.errors import FileError
from graphprog.text import Demonstrations, Template, load_demos, save_demos

TEMPLATE = Template("{question} ->{answer}")
DEMOS = [
    {"augmented": True, "question": "1 + 1?", "reasoning": "Count.", "answer": "2"},
    {"question": "2 + 2?", "answer": 4, "reasoning": None},
]
SIGNATURE = {
    "instructions": "Answer the question.",
    "fields": [{"prefix": "Question:", "description": "${question}"}],
}


def state(demos: Any) -> dict[str, Any]:
    return {"traces": [], "train": [], "demos": demos, "signature": SIGNATURE, "lm": None}


def program(**demos: Any) -> dict[str, Any]:
    """What DSPy 2.6 and 3 write: a state by predictor, other parameters, metadata."""
    metadata = {"dependency_versions": {"python": "3.12", "dspy": "3.0.3", "cloudpickle": "3.1"}}
    named = {key.replace("__", "."): state(value) for key, value in demos.items()}
    return {**named, "retrieve": {"k": 3}, "metadata": metadata}


def write(folder: Path, document: Any) -> Path:
    file = folder / "program.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "document",
    [
        DEMOS,
        {**state(DEMOS), "metadata": {}},
        program(solve__predict=DEMOS),
        program(decompose=[], solve=DEMOS),
        program(demos=DEMOS),
    ],
    ids=["list", "predictor", "program", "one-of-two", "named-demos"],
)
def test_demonstrations_are_read(tmp_path: Path, document: Any) -> None:
    file = write(tmp_path, document)
    assert load_demos(file) == [
        {"question": "1 + 1?", "reasoning": "Count.", "answer": "2"},
        {"question": "2 + 2?", "answer": "4"},
    ]
    found = Demonstrations(load_demos(str(file), fields=TEMPLATE.fields), TEMPLATE)
    assert found.render({"question": "3 + 3?"}).text == "1 + 1? ->2\n\n2 + 2? ->4\n\n3 + 3? ->"


def test_a_predictor_is_named_where_several_have_demonstrations(tmp_path: Path) -> None:
    file = write(tmp_path, program(first=DEMOS[:1], second__predict=DEMOS))
    assert len(load_demos(file, "first")) == 1
    assert len(load_demos(file, "second.predict")) == 2
    with pytest.raises(FileError, match=r"program.json: there are several predictors: first,"):
        load_demos(file)
    with pytest.raises(FileError, match=r"no predictor 'third'; it has first, second.predict"):
        load_demos(file, "third")
    with pytest.raises(FileError, match="no predictor 'retrieve'"):
        load_demos(file, "retrieve")


def test_a_program_without_demonstrations(tmp_path: Path) -> None:
    assert load_demos(write(tmp_path, program(only=[]))) == []
    with pytest.raises(FileError, match="there are several predictors: a, b"):
        load_demos(write(tmp_path, program(a=[], b=[])))


def test_values_that_are_no_text_are_read_as_json(tmp_path: Path) -> None:
    values = {"answer": ["a", 1], "question": True, "reasoning": {"ö": 1.5}}
    assert load_demos(write(tmp_path, [values])) == [
        {"answer": '["a",1]', "question": "true", "reasoning": '{"ö":1.5}'}
    ]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"metadata": {}}, "program.json: no predictor has a list 'demos'"),
        ("text", "program.json: no predictor has a list 'demos'"),
        (program(solve={"a": 1}), "program.json: solve.demos is {'a': 1}, not a list"),
        (program(solve=[*DEMOS, "x"]), "program.json: solve.demos[2] is 'x', not an object"),
        ([3], "program.json: demos[0] is 3, not an object"),
        ([{"question": "a", "answer": None}], "demos[0] has no 'answer'; its fields are question"),
    ],
)
def test_files_of_another_form(tmp_path: Path, document: Any, said: str) -> None:
    with pytest.raises(FileError) as caught:
        load_demos(write(tmp_path, document), fields=TEMPLATE.fields)
    assert said in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"absent.json: cannot be read"):
        load_demos(tmp_path / "absent.json")
    file = tmp_path / "program.json"
    file.write_text("{", encoding="utf-8")
    with pytest.raises(FileError, match=r"program.json: not valid JSON"):
        load_demos(file)
    file.write_bytes(b"\x80\x04\x95")
    with pytest.raises(FileError, match="pickles are not loaded"):
        load_demos(file)
    with pytest.raises(FileError, match="it has one without a name"):
        load_demos(write(tmp_path, DEMOS), "solve")


SHOWN = Demonstrations([("a", "b"), ("ö", "d")], TEMPLATE)
RECORDS = [{"question": "a", "answer": "b"}, {"question": "ö", "answer": "d"}]


def test_a_new_file_is_a_list(tmp_path: Path) -> None:
    file = tmp_path / "new.json"
    for _ in range(2):
        assert save_demos(file, SHOWN) == file.resolve()
        assert json.loads(file.read_text("utf-8")) == RECORDS
        assert load_demos(file) == RECORDS


def test_all_else_in_a_saved_program_stays(tmp_path: Path) -> None:
    file = write(tmp_path, program(first=DEMOS, second=[]))
    save_demos(file, SHOWN, "second")
    assert json.loads(file.read_text("utf-8")) == program(first=DEMOS, second=RECORDS)
    assert load_demos(file, "second") == RECORDS
    single = write(tmp_path, state(DEMOS))
    save_demos(single, SHOWN)
    assert json.loads(single.read_text("utf-8")) == state(RECORDS)


def test_what_is_not_written(tmp_path: Path) -> None:
    before = write(tmp_path, program(first=DEMOS, second=[])).read_bytes()
    file = tmp_path / "program.json"
    with pytest.raises(FileError, match="there are several predictors: first, second"):
        save_demos(file, SHOWN)
    with pytest.raises(FileError, match="no predictor 'third'"):
        save_demos(file, SHOWN, "third")
    surrogate = Demonstrations([("a", "\ud800")], TEMPLATE)
    with pytest.raises(FileError, match="lone surrogate"):
        save_demos(file, surrogate, "first")
    assert file.read_bytes() == before
    with pytest.raises(FileError, match="cannot be written"):
        save_demos(tmp_path / "absent" / "new.json", SHOWN)
    assert list(tmp_path.iterdir()) == [file]
