"""Metadata of a deployed file: its contract, its inputs, its source.

The text of one JSON object, stored under the key ``graphprog`` of a file's metadata. It has all
that a saved program's document has, and the interface of the model around it. Entries that a
reader does not know are ignored; ``format.version`` is raised only when an older reader would
misread a file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

from graphprog.analysis.token_inputs import TokenInputs
from graphprog.backends.onnx_model.export_program import output_names
from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.program import Contract
from graphprog.errors import FileError, ProgramError
from graphprog.io.artifact import check_format
from graphprog.io.saving import document_of
from graphprog.ir.fingerprint import Fingerprint
from graphprog.ir.inputs import InputSpec
from graphprog.spec.registry import from_json
from graphprog.utils.json import parse_json, render_json
from graphprog.utils.version import __version__

KEY = "graphprog"
FORMAT_NAME = "graphprog-deployed"
FORMAT_VERSION = 1
_NOT_OURS = ["give a file that a graphprog backend exported"]
_BROKEN = ["export the task again: this file is damaged"]


@dataclasses.dataclass(frozen=True)
class TextEntry:
    """How texts become the inputs of a deployed file.

    Attributes:
        ids: name of the input of token ids.
        mask: name of the input that is 1 for a token; empty if there is none.
        vocabulary: number of rows of the table of tokens.
        ends: whether the special tokens after a text belong to it.
        tokenizer: fingerprint of the tokenizer.
    """

    ids: str
    mask: str
    vocabulary: int
    ends: bool
    tokenizer: str


@dataclasses.dataclass(frozen=True)
class Deployed:
    """A deployed file's document, read and checked.

    Attributes:
        inputs: names, shapes and dtypes, in order.
        outputs: names, in order.
        contract: the space, normalization, range and labels of the program.
        source_name: of the source model.
        source: fingerprint of the source model.
        program: the program's spec as JSON.
        state: shape and dtype of every tensor that a saved program of this spec has.
        fixed: SHA-256 of every tensor that belongs to the spec, by its name there.
        per_row: where each row of a batch has its own program, the tensors of a program that are
            stacked in inputs of these names, and which of their axes has a length of its own a
            program: that of the classes, or None. Otherwise empty.
        text: how texts become inputs; None where the source has no tokenizer.
    """

    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    contract: Contract
    source_name: str
    source: Fingerprint
    program: Mapping[str, Any]
    state: Mapping[str, str]
    fixed: Mapping[str, str]
    per_row: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    text: TextEntry | None = None


class Documented:
    """Base of objects that run a deployed file, with the fields of its document."""

    document: Deployed

    @property
    def contract(self) -> Contract:
        """Space, normalization, range and labels of the program."""
        return self.document.contract

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the target classes; empty where the program has none."""
        return self.document.contract.labels

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Name, shape and dtype of every input."""
        return self.document.inputs


def describe(task: ReprogrammedModel, per_row: Mapping[str, int | None] | None = None) -> str:
    """Text of the document of a task.

    Args:
        task: what the file holds.
        per_row: see :class:`Deployed`.

    Raises:
        FileError: the task's training summary is not JSON.
    """
    state = task.program_state()
    tensors = dict(state)
    document = document_of(task, tensors)
    document |= {
        "format": {"name": FORMAT_NAME, "version": FORMAT_VERSION},
        "graphprog": __version__,
        "inputs": [
            {"name": spec.name, "shape": spec.shape, "dtype": _dtype_name(spec.dtype)}
            for spec in task.inputs
        ],
        "outputs": output_names(task),
        "state": {name: type_of(tensor) for name, tensor in state.items()},
        "fixed": fixed_tensors({k: v for k, v in tensors.items() if k not in state}),
    }
    if per_row is not None:
        document["per_row"] = per_row
    if (text := _text_of(task)) is not None:
        document["text"] = dataclasses.asdict(text)
    return render_json(document, "document")


def _text_of(task: ReprogrammedModel) -> TextEntry | None:
    """Return how texts become inputs of a task; None if that is not known."""
    if task.prompt is None:
        return None
    try:
        inputs = TokenInputs.of(task.base)
    except ProgramError:
        return None
    if inputs.ids not in {spec.name for spec in task.inputs}:
        return None
    tokens = task.prompt.tokens
    return TextEntry(
        inputs.ids, inputs.mask, inputs.vocabulary, task.prompt.ends, tokens.fingerprint
    )


def viewer_entries(task: ReprogrammedModel) -> dict[str, str]:
    """Return plain entries for viewers of a file, besides the document."""
    contract = task.spec.contract
    return {
        "program": str(task.spec),
        "pipeline": str(task.pipeline),
        "contract": str(contract),
        "labels": json.dumps(contract.labels, ensure_ascii=False),
        "source": f"{task.base.name}: {task.base.fingerprint}",
    }


def type_of(tensor: torch.Tensor) -> str:
    """Such as ``float32[1,3,224,224]``."""
    return f"{_dtype_name(tensor.dtype)}[{','.join(map(str, tensor.shape))}]"


def fixed_tensors(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """SHA-256 of type and bytes of every tensor."""
    found = {}
    for name, tensor in tensors.items():
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        found[name] = hashlib.sha256(type_of(tensor).encode() + data.numpy().tobytes()).hexdigest()
    return found


def read_document(text: Any) -> Deployed:
    """Read a document.

    Args:
        text: what the file has under :data:`KEY`; anything at all.

    Raises:
        FileError: it is none, damaged, hostile, or of a version this package does not know.
    """
    if not isinstance(text, str):
        raise FileError("not a file of graphprog: it has no document", _NOT_OURS)
    document = parse_json(text, "document")
    if not isinstance(document, dict):
        raise FileError(f"document: a {type(document).__name__}, expected an object", _BROKEN)
    foreign = FileError("not a deployed file of graphprog: its document is another", _NOT_OURS)
    check_format(document.get("format"), FORMAT_NAME, FORMAT_VERSION, foreign)
    contract = from_json(document.get("contract"), {})
    if not isinstance(contract, Contract):
        raise FileError("the document holds no contract", _BROKEN)
    source = _texts(document, "source")
    program = document.get("program")
    if not isinstance(program, dict):
        raise FileError("the document holds no program", _BROKEN)
    return Deployed(
        inputs=tuple(_input(entry) for entry in _list(document, "inputs")),
        outputs=tuple(_name(entry) for entry in _list(document, "outputs")),
        contract=contract,
        source_name=source.get("name", ""),
        source=Fingerprint(source.get("text", ""), source.get("weights", "")),
        program=program,
        state=_texts(document, "state"),
        fixed=_texts(document, "fixed"),
        per_row=_class_axes(document.get("per_row", {})),
        text=_text_entry(document.get("text")),
    )


def _text_entry(value: Any) -> TextEntry | None:
    if value is None:
        return None
    kinds = {"ids": str, "mask": str, "vocabulary": int, "ends": bool, "tokenizer": str}
    if not isinstance(value, dict) or not all(
        type(value.get(name)) is kind for name, kind in kinds.items()
    ):
        raise FileError("document.text: expected how texts become inputs", _BROKEN)
    return TextEntry(**{name: value[name] for name in kinds})


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    if not isinstance(value, list):
        raise FileError(f"document.{name}: expected a list", _BROKEN)
    return value


def _texts(document: Mapping[str, Any], name: str) -> dict[str, str]:
    value = document.get(name)
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise FileError(f"document.{name}: expected an object of texts", _BROKEN)
    return value


def _class_axes(value: Any) -> dict[str, int | None]:
    axes = value.values() if isinstance(value, dict) else (False,)
    if not all(axis is None or (type(axis) is int and 0 <= axis < 16) for axis in axes):
        raise FileError("document.per_row: expected an object of axes", _BROKEN)
    return dict(value)


def _name(entry: Any) -> str:
    if not isinstance(entry, str):
        raise FileError("document.outputs: expected names", _BROKEN)
    return entry


def _input(entry: Any) -> InputSpec:
    if isinstance(entry, dict) and isinstance(entry.get("shape"), list):
        name, shape, dtype = entry.get("name"), entry["shape"], _dtype(entry.get("dtype"))
        sizes = all(isinstance(size, int | str) and not isinstance(size, bool) for size in shape)
        if isinstance(name, str) and sizes and dtype is not None:
            return InputSpec(name, tuple(shape), dtype)
    raise FileError("document.inputs: expected name, shape and dtype of each", _BROKEN)


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: Any) -> torch.dtype | None:
    found = getattr(torch, name, None) if isinstance(name, str) else None
    return found if isinstance(found, torch.dtype) else None
