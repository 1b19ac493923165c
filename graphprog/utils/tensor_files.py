"""Writing tensors to safetensors files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from graphprog.utils.files import atomic_write


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write tensors atomically, tensor by tensor; see :func:`~graphprog.utils.files.atomic_write`.

    Raises:
        FileError: the path cannot be written, for example because the disk is full.
    """

    def write(temporary: Path) -> None:
        try:
            safetensors.torch.save_file(dict(tensors), temporary, dict(metadata or {}) or None)
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error

    return atomic_write(path, write)
