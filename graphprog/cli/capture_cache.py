"""Captures of models by name, kept between calls of the command line.

A capture takes seconds, and a graph's file far less. What identifies a capture is everything that
decides it: weights, configuration and class of the model, its example, and the versions of the
libraries. Models of a user's own function are not kept: such code may depend on anything.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import pickle
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import graphprog as gp
from graphprog.errors import FileError
from graphprog.utils.files import cache_folder
from graphprog.utils.lazy import load

SCHEMES = ("timm", "torchvision", "hf", "peft", "gguf")
"""Schemes of libraries, whose models are decided by their version."""

_LIBRARIES = ("torch", "timm", "torchvision", "transformers", "peft", "gguf", "tokenizers")
_LIMIT = 10 * 2**30


def kept_or_captured(name: str) -> gp.Graph:
    """Load a model by name; return its graph from the cache, or capture it and keep it."""
    source = gp.sources.open_source(name)
    path = cache_folder() / f"{identity(source)}.graph"
    if path.is_file():
        try:
            graph = gp.Graph.load(path, tokenizer=source.tokenizer)
            os.utime(path)  # used last
            return graph
        except FileError:
            path.unlink(missing_ok=True)
    args, kwargs = source.example(name)
    graph = gp.capture(
        source.model,
        args,
        kwargs,
        source.dynamic_axes,
        tokenizer=source.tokenizer,
        hints=source.hints,
    )
    _keep(graph, path)
    return graph


def identity(source: gp.sources.Source) -> str:
    """Return a hash of all that decides a capture; another one each time if it is not known."""
    digest = hashlib.sha256()
    for line in _versions():
        digest.update(f"{line}\n".encode())
    parts = (source.model, source.args, source.kwargs, source.dynamic_axes, source.hints)
    try:
        _Pickler(digest).dump(parts)
    except Exception:  # a part that cannot be pickled, such as a lambda
        digest.update(os.urandom(16))
    return digest.hexdigest()


def _versions() -> Iterator[str]:
    """Yield the versions of Python and the libraries, and the files of graphprog itself."""
    yield f"{platform.platform()} {sys.version}"
    for name in _LIBRARIES:
        try:
            yield f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    for folder in gp.__path__:
        for package in ("", "passes"):
            for file in sorted((Path(folder) / package).rglob("*.py")):
                state = file.stat()
                yield f"{file} {state.st_size} {state.st_mtime_ns}"


class _Pickler(pickle.Pickler):
    """A pickler into a hash; tensors by type, shape and bytes, sets by their elements."""

    def __init__(self, digest: Any) -> None:
        super().__init__(_Writer(digest), protocol=4)
        self.tensor = load("torch:Tensor")

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, set | frozenset):  # their order differs between processes
            return sorted(map(repr, value))
        if not isinstance(value, self.tensor):
            return None
        dense = value.detach().cpu().contiguous().reshape(-1)
        data = dense.view(load("torch:uint8")).numpy() if dense.numel() else b""
        return (
            str(value.dtype),
            tuple(value.shape),
            tuple(value.stride()),
            value.requires_grad,
            hashlib.sha256(data).hexdigest(),
        )


class _Writer:
    """A file whose bytes go into a hash."""

    def __init__(self, digest: Any) -> None:
        self.digest = digest

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return len(data)


def _keep(graph: gp.Graph, path: Path) -> None:
    """Write a graph, and remove those that were used longest ago beyond the limit."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        graph.save(path)
        _shrink(path.parent, int(os.environ.get("GRAPHPROG_CACHE_BYTES", _LIMIT)))
    except (FileError, OSError):  # a graph that cannot be stored, or no place for it
        path.unlink(missing_ok=True)


def _shrink(folder: Path, limit: int) -> None:
    files = sorted(folder.glob("*.graph"), key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > limit:
            file.unlink(missing_ok=True)
