"""Checkpoint folders of PEFT: a configuration and tensors."""

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
from graphprog.io.artifact import require_finite, within
from graphprog.io.hub import download, folder_of
from graphprog.manipulations.base import Manipulation
from graphprog.utils.files import atomic_write, read_regular
from graphprog.utils.json import parse_json
from graphprog.utils.tensor_files import write_tensors

CONFIG = "adapter_config.json"
_MAX_CONFIG = 2**22
_MAX_TENSORS = 2**32
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
"""Methods that do not change modules of the model."""
KINDS = (*OUTSIDE, SCALING)


@dataclasses.dataclass(frozen=True)
class Folder:
    """Content of a checkpoint folder.

    Attributes:
        name: name of the folder, for messages.
        config: the adapter's configuration.
        tensors: the adapter's tensors by name.
    """

    name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    @property
    def kind(self) -> str:
        """PEFT's name of the method."""
        return str(self.config.get("peft_type"))

    def number(self, name: str, default: int | None = None) -> int:
        """Read a non-negative integer of the configuration.

        Raises:
            FileError: the entry is something else.
        """
        value = self.config.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise FileError(f"{self.name}: {name} must be an integer, not {value!r:.60}")
        return value

    def tensor(self, name: str) -> torch.Tensor:
        """Get a tensor by name, in float32.

        Raises:
            FileError: there is no such tensor.
        """
        if name not in self.tensors:
            raise FileError(f"{self.name}: {TENSORS} has no {name!r}")
        return self.tensors[name].to(torch.float32)

    def modules(self) -> dict[str, dict[str, torch.Tensor]]:
        """Tensors of the model's modules, by module path and name."""
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
    """One part of a program, and its learned tensors by name."""

    part: Manipulation
    state: dict[str, torch.Tensor]


def read(path: str | os.PathLike[str], revision: str | None, token: str | None) -> Folder:
    """Read a folder, or a repository of the Hugging Face Hub.

    Raises:
        FileError: a file is missing or corrupt, or the method is not supported.
    """
    given = path if isinstance(path, str) else Path(path)
    folder = folder_of(given)
    name = str(path)
    if folder is None:
        files = [download(name, file, revision, None, token) for file in (CONFIG, TENSORS)]
    else:
        files = [folder / file for file in (CONFIG, TENSORS)]
    config = _config(name, files[0])
    if not files[1].is_file():
        raise FileError(
            f"{name}: there is no {TENSORS}",
            ["save it with safe_serialization=True; pickles are not loaded"],
        )
    if files[1].stat().st_size > _MAX_TENSORS:
        raise FileError(f"{name}: {TENSORS} is larger than {_MAX_TENSORS >> 30} GiB")
    try:
        tensors = safetensors.torch.load_file(files[1])
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise FileError(f"{name}: {TENSORS} is corrupt: {error}") from error
    with within(f"{name}: {TENSORS}"):
        for own, tensor in tensors.items():
            require_finite(own, tensor)
    return Folder(name, config, tensors)


def _config(name: str, file: Path) -> Mapping[str, Any]:
    try:
        text = read_regular(file, _MAX_CONFIG).decode("utf-8")
    except (FileError, ValueError) as error:
        raise FileError(
            f"{name}: {CONFIG} cannot be read: {error}", ["give a checkpoint folder of PEFT"]
        ) from error
    config = parse_json(text, f"{name}: {CONFIG}")
    if not isinstance(config, dict):
        raise FileError(f"{name}: {CONFIG} must be a JSON object")
    kind = config.get("peft_type")
    if kind not in KINDS:
        raise FileError(
            f"{name}: checkpoints of {kind!r:.60} are not supported; supported are "
            f"{', '.join(KINDS)}"
        )
    return config


def write(
    path: str | os.PathLike[str], config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> None:
    """Write a folder and create it if needed; each file is replaced atomically.

    Raises:
        FileError: the folder cannot be written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be created: {error.strerror}") from error
    dense = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_tensors(folder / TENSORS, dense, {"format": "pt"})
    text = json.dumps(dict(sorted(config.items())), indent=2) + "\n"
    atomic_write(folder / CONFIG, lambda file: file.write_text(text, "utf-8"))
