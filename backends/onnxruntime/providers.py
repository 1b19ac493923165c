"""Execution providers, tried out because ONNX Runtime silently falls back to another."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from graphprog.backends.onnxruntime.session_options import Options, SessionOptions
from graphprog.errors import BackendError, FileError

Provider = str | tuple[str, Mapping[str, Any]]
Providers = str | Sequence[Provider]

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_SUFFIX = "ExecutionProvider"
_NEWER = ["update ONNX Runtime", "export the task again, with an older opset=..."]
_BROKEN = [
    "copy the .data file that belongs to it beside it, if it is missing there",
    "export the task again: this file is damaged",
]


def open_session(
    model: str | os.PathLike[str] | bytes,
    providers: Providers = "auto",
    options: Options = None,
) -> onnxruntime.InferenceSession:
    """Load a model on exactly the requested providers.

    Args:
        model: path or bytes of an ONNX file.
        providers: ``"auto"``: a GPU if there is one that works, else the CPU. A name
            such as ``"cuda"`` or ``"CUDAExecutionProvider"``, or a sequence of names, or of
            (name, options): exactly these, in order of preference.
        options: of the session; None takes those of ``SessionOptions()``.

    Raises:
        BackendError: a provider is unknown, not in this build, or does not start here.
        FileError: the model cannot be loaded by any provider.

    Warns:
        RuntimeWarning: ``auto`` found a GPU that ONNX Runtime cannot use.
    """
    if options is None or isinstance(options, SessionOptions):
        options = (options or SessionOptions()).made()
    if providers == "auto":
        return _open_automatically(model, options)
    wanted = [_resolved(entry) for entry in _entries(providers)]
    session = _try(model, wanted, options)
    if isinstance(session, str):
        names = " and ".join(_short(name) for name, _ in wanted)
        raise BackendError(
            f"ONNX Runtime {onnxruntime.__version__} cannot use {names} here: {session}",
            [
                "install the libraries that the provider needs",
                'providers="cpu", or "auto" to take what works',
            ],
        )
    return session


def _open_automatically(
    model: str | os.PathLike[str] | bytes, options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    cpu = [(_CPU, dict[str, Any]())]
    if gpu_available():
        session = _try(model, [(_CUDA, {}), *cpu], options)
        if not isinstance(session, str):
            return session
        warnings.warn(
            f"there is a GPU, but ONNX Runtime runs on the processor: {session}. "
            'Try: providers="cpu" if that is meant',
            RuntimeWarning,
            stacklevel=4,
        )
    session = _try(model, cpu, options)
    assert not isinstance(session, str), session
    return session


def gpu_available() -> bool:
    """Whether this machine has an NVIDIA GPU, even if torch is not built for it."""
    return torch.cuda.is_available() or Path("/dev/nvidiactl").exists()


def _entries(providers: Providers) -> list[Provider]:
    entries: list[Provider] = [providers] if isinstance(providers, str) else list(providers)
    if not entries:
        raise BackendError("providers is empty", ['providers="auto"', 'providers="cpu"'])
    return entries


def _resolved(entry: Provider) -> tuple[str, dict[str, Any]]:
    name, settings = (entry, {}) if isinstance(entry, str) else (entry[0], dict(entry[1]))
    by_short_name = {_short(known): known for known in onnxruntime.get_all_providers()}
    full = by_short_name.get(_short(name))
    built_in = onnxruntime.get_available_providers()
    if full is None or full not in built_in:
        missing = "unknown to" if full is None else "not in this build of"
        raise BackendError(
            f"provider {name!r} is {missing} ONNX Runtime {onnxruntime.__version__}",
            [
                f"one of {', '.join(map(_short, built_in))}",
                "install the distribution of ONNX Runtime that has it, in place of this one",
            ],
        )
    return full, settings


def _short(name: str) -> str:
    return name.removesuffix(_SUFFIX).lower()


def _try(
    model: str | os.PathLike[str] | bytes,
    wanted: Sequence[tuple[str, dict[str, Any]]],
    options: onnxruntime.SessionOptions,
) -> onnxruntime.InferenceSession | str:
    """Return a session on exactly the requested providers, or why they do not start.

    Raises:
        FileError: not even the CPU can run the model.
    """
    source = model if isinstance(model, bytes) else os.fspath(model)
    try:
        session = onnxruntime.InferenceSession(
            source, options, providers=list(wanted), enable_fallback=0
        )
    except Exception as error:
        reason = _first_line(error)
        if wanted[0][0] == _CPU:
            remedies = _NEWER if "opset" in reason.lower() else _BROKEN
            raise FileError(f"ONNX Runtime cannot load the model: {reason}", remedies) from error
        _try(model, [(_CPU, {})], options)
        return reason
    started = session.get_providers()
    if started[: len(wanted)] != [name for name, _ in wanted]:
        return f"it started with {', '.join(map(_short, started))} only"
    return session


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:500]
