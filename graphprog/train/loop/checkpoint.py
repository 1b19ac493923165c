"""Checkpoints: one file per run, replaced after every epoch, from which the run resumes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import safetensors
import torch

from graphprog.errors import FileError, TrainingError
from graphprog.train.history import EpochRecord
from graphprog.train.loop.state import RunState
from graphprog.utils.files import make_folder
from graphprog.utils.json import parse_json, render_json
from graphprog.utils.tensor_files import write_tensors
from graphprog.utils.tensor_tree import checksum, decode, encode

FILE_NAME = "state.safetensors"
_KEY = "graphprog-run"
_VERSION = 2
_REMEDIES = [
    "use another checkpoint folder",
    "call fit with the same arguments as the run in this folder",
]


@dataclasses.dataclass
class Snapshot:
    """The complete state of a run between two epochs.

    Attributes:
        state: progress of the run.
        program: tensors of the program as trained so far.
        optimizer: state dict of the optimizer; None if nothing is trained.
        scaler: state dict of the gradient scaler; empty if there is none.
        generators: states of the loaders' own generators.
    """

    state: RunState
    program: dict[str, torch.Tensor]
    optimizer: dict[str, Any] | None
    scaler: dict[str, Any]
    generators: list[torch.Tensor]


def write_snapshot(folder: Path, identity: dict[str, Any], snapshot: Snapshot) -> None:
    """Replace the checkpoint file of a run atomically.

    Raises:
        FileError: the folder cannot be written.
        TrainingError: the optimizer's state cannot be saved.
    """
    tensors: dict[str, torch.Tensor] = {}
    fields = {item.name: getattr(snapshot, item.name) for item in dataclasses.fields(snapshot)}
    state = dict(vars(snapshot.state))
    state["records"] = [dataclasses.asdict(record) for record in state["records"]]
    fields["state"] = state
    document = {"version": _VERSION, "run": identity, "snapshot": encode(fields, tensors, "run")}
    document["checksum"] = _checksum(tensors)
    metadata = {_KEY: render_json(document, "checkpoint")}
    write_tensors(folder / FILE_NAME, tensors, metadata)


def read_snapshot(folder: Path, identity: dict[str, Any]) -> Snapshot | None:
    """Read the checkpoint of a run; None if it has not begun. Creates the folder.

    Raises:
        FileError: the folder cannot be created, or its file is damaged or of another version.
        TrainingError: it belongs to another run; the message says what differs.
    """
    path = folder / FILE_NAME
    make_folder(folder)
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if _KEY not in metadata:
        raise FileError(f"{path}: not the checkpoint of a training run", _REMEDIES[:1])
    document = parse_json(metadata[_KEY], str(path))
    try:
        version, found, fields = document["version"], document["run"], document["snapshot"]
        if document["checksum"] != _checksum(tensors):
            raise ValueError("the checksum of the tensors does not match")
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    if version != _VERSION:
        raise FileError(
            f"{path} has checkpoint version {version!r:.40}; this graphprog reads {_VERSION}"
        )
    _check_identity(path, found, identity)
    try:
        return _snapshot(decode(fields, tensors))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _checksum(tensors: dict[str, torch.Tensor]) -> int:
    return checksum(tensors[name] for name in sorted(tensors))


def _snapshot(fields: dict[str, Any]) -> Snapshot:
    state = RunState(**fields.pop("state"))
    state.records = [EpochRecord(**record) for record in state.records]  # type: ignore[arg-type]
    return Snapshot(state=state, **fields)


def _check_identity(path: Path, found: Any, identity: dict[str, Any]) -> None:
    if not isinstance(found, dict):
        raise FileError(f"{path}: damaged: it does not name the run that it belongs to")
    own = parse_json(render_json(identity, "run"), "run")
    for name in {**found, **own}:
        if found.get(name) != own.get(name):
            raise TrainingError(
                f"{path} belongs to another run: {name} was {_short(found.get(name))} there and "
                f"is {_short(own.get(name))} here",
                _REMEDIES,
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _damaged(path: Path, error: Exception) -> FileError:
    return FileError(
        f"{path}: damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
        ["delete the file to restart the run from the beginning"],
    )
