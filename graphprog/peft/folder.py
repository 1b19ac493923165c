"""A checkpoint folder of PEFT: a configuration and tensors."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from graphprog.errors import FileError
from graphprog.io.hub import download, folder_of
from graphprog.manipulations.base import Manipulation
from graphprog.utils.files import atomic_write
from graphprog.utils.json import parse_json

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
PROMPT, ENCODER, MULTITASK, PREFIX, SCALING = (
    "PROMPT_TUNING",
    "P_TUNING",
    "MULTITASK_PROMPT_TUNING",
    "PREFIX_TUNING",
    "IA3",
)
PROMPTS = (PROMPT, ENCODER, MULTITASK)
OUTSIDE = (*PROMPTS, PREFIX)
"""Methods that leave the modules of the model as they are."""
KINDS = (*OUTSIDE, SCALING)


@dataclasses.dataclass(frozen=True)
class Folder:
    """What is in a checkpoint folder.

    Attributes:
        name: of the folder, for messages.
        config: the adapter's configuration.
        tensors: its tensors, by their names there.
    """

    name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    @property
    def kind(self) -> str:
        """The method, as PEFT calls it."""
        return str(self.config.get("peft_type"))

    def number(self, name: str, default: int | None = None) -> int:
        """A whole number of the configuration.

        Raises:
            FileError: it is something else.
        """
        value = self.config.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise FileError(f"{self.name}: {name} is {value!r:.60}, not a number")
        return value

    def tensor(self, name: str) -> torch.Tensor:
        """One of the tensors, in float32.

        Raises:
            FileError: there is none of that name.
        """
        if name not in self.tensors:
            raise FileError(f"{self.name}: {TENSORS} has no {name!r}")
        return self.tensors[name].to(torch.float32)

    def modules(self) -> dict[str, dict[str, torch.Tensor]]:
        """Tensors of modules of the model, by the path that each has there."""
        found: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in self.tensors.items():
            if not name.startswith("base_model."):
                continue
            path = name.removeprefix("base_model.")
            if self.kind not in OUTSIDE:  # the model is wrapped once more
                path = path.removeprefix("model.")
            module, _, own = path.rpartition(".")
            found.setdefault(module, {})[own] = tensor.to(torch.float32)
        return found


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a program and what it has learned, by name within the part."""

    part: Manipulation
    state: dict[str, torch.Tensor]


def read(path: str | os.PathLike[str], revision: str | None, token: str | None) -> Folder:
    """Read a folder, or a repository of the Hugging Face Hub.

    Raises:
        FileError: something is missing, damaged, or of a method that is not read.
    """
    given = path if isinstance(path, str) else Path(path)
    folder = folder_of(given)
    name = str(path)
    if folder is None:
        files = [download(name, file, revision, None, token) for file in (CONFIG, TENSORS)]
    else:
        files = [folder / file for file in (CONFIG, TENSORS)]
    config = _config(name, files[0])
    if not files[1].exists():
        raise FileError(
            f"{name}: there is no {TENSORS}",
            ["save it with safe_serialization=True: nothing that is pickled is read here"],
        )
    try:
        tensors = safetensors.torch.load_file(files[1])
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise FileError(f"{name}: {TENSORS} is damaged: {error}") from error
    return Folder(name, config, tensors)


def _config(name: str, file: Path) -> Mapping[str, Any]:
    try:
        text = file.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise FileError(
            f"{name}: {CONFIG} cannot be read: {error}", ["name a checkpoint folder of PEFT"]
        ) from error
    config = parse_json(text, f"{name}: {CONFIG}")
    if not isinstance(config, dict):
        raise FileError(f"{name}: {CONFIG} holds no object")
    kind = config.get("peft_type")
    if kind not in KINDS:
        raise FileError(
            f"{name}: a checkpoint of {kind!r:.60} is not read: what is read is {', '.join(KINDS)}"
        )
    return config


def write(
    path: str | os.PathLike[str], config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> None:
    """Write a folder, which is made; each of its files is replaced as a whole.

    Raises:
        FileError: it cannot be written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be made: {error.strerror}") from error
    dense = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"format": "pt"}
    atomic_write(folder / TENSORS, lambda file: safetensors.torch.save_file(dense, file, metadata))
    text = json.dumps(dict(sorted(config.items())), indent=2) + "\n"
    atomic_write(folder / CONFIG, lambda file: file.write_text(text, "utf-8"))
