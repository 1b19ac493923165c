"""Sessions refuse files that are damaged, incomplete, hostile or of something else."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch

import graphprog as gp
from graphprog.backends.onnxruntime import Session
from graphprog.errors import FileError

pytestmark = pytest.mark.xdist_group("deployed-onnxruntime")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    contract = gp.Contract(labels=("a", "b", "c", "d", "e"))
    program = gp.Program(align=gp.FixedMap(5), contract=contract)
    task = gp.compile(gp.capture(torch.nn.Linear(4, 600), (torch.rand(2, 4),)), program)
    path = tmp_path_factory.mktemp("exported") / "folded.onnx"
    gp.backends.onnx.export(task, path)
    return path


def altered(path: Path, target: Path, **entries: str | None) -> Path:
    """A copy of the folded file with other metadata; None removes an entry."""
    model = onnx.load(path)
    kept = {entry.key: entry.value for entry in model.metadata_props} | entries
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {k: v for k, v in kept.items() if v is not None})
    onnx.save(model, target)
    return target


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "not a file of graphprog"),
        ("{", "document: not valid JSON"),
        ("[]", "document: a list, expected an object"),
        ("{}", "its document is another"),
        ('{"format":{"name":"graphprog-deployed","version":2}}', "format version 2; .* up to 1"),
        ('{"format":{"name":"graphprog-deployed","version":"1"}}', "expected an integer"),
        ('{"format":{"name":"graphprog-deployed","version":1}}', "unknown spec kind|no contract"),
    ],
)
def test_files_with_another_document_are_refused(
    path: Path, tmp_path: Path, document: str | None, message: str
) -> None:
    bad = altered(path, tmp_path / "altered.onnx", graphprog=document)
    with pytest.raises(FileError, match=message) as caught:
        Session(bad)
    assert str(bad) in str(caught.value)


@pytest.mark.parametrize("field", ["contract", "program", "source", "inputs", "outputs", "state"])
@pytest.mark.parametrize("value", ["null", "7", '[{"shape":[true]}]', '{"kind":1,"x":[]}'])
def test_hostile_fields_are_refused(path: Path, tmp_path: Path, field: str, value: str) -> None:
    entries = {e.key: e.value for e in onnx.load(path).metadata_props}
    document = json.loads(entries["graphprog"])
    document[field] = json.loads(value)
    bad = altered(path, tmp_path / "altered.onnx", graphprog=json.dumps(document))
    if (field, value) == ("outputs", '[{"shape":[true]}]'):
        with pytest.raises(FileError, match="outputs"):
            Session(bad)
    elif (field, value) == ("program", '{"kind":1,"x":[]}'):
        Session(bad)  # a spec of some newer graphprog: only swapping needs to understand it
    else:
        with pytest.raises(FileError):
            Session(bad)


def test_damaged_and_missing_files(path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        Session(tmp_path / "absent.onnx")
    data = path.read_bytes()
    for number, content in enumerate((b"", b"garbage", data[: len(data) // 2])):
        bad = tmp_path / f"{number}.onnx"
        bad.write_bytes(content)
        with pytest.raises(FileError, match=rf"{number}\.onnx: "):
            Session(bad)


def test_missing_external_data_are_an_error(path: Path, tmp_path: Path) -> None:
    model = onnx.load(path)
    bad = tmp_path / "big.onnx"
    onnx.save(model, bad, save_as_external_data=True, location="big.data")
    assert Session(bad).labels == tuple("abcde")
    (tmp_path / "big.data").unlink()
    with pytest.raises(FileError, match=r"cannot load the model.*big\.data"):
        Session(bad)


def test_an_unknown_opset_is_an_error(path: Path, tmp_path: Path) -> None:
    model = onnx.load(path)
    model.opset_import[0].version = 999
    onnx.save(model, tmp_path / "future.onnx")
    with pytest.raises(FileError, match=r"(?si)cannot load the model.*opset.*update ONNX Runtime"):
        Session(tmp_path / "future.onnx")
