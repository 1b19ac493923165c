"""Backends: lower a reprogrammed model to something that runs elsewhere.

``pytorch``, ``onnx``, ``onnxruntime`` and ``triton`` are modules of this package, imported when
first named. Other packages add a backend, an object with the ``export`` of
:class:`graphprog.backends.parity.report.Backend`, under its name in the entry point group
``graphprog.backends``.
"""

from __future__ import annotations

if not __name__.startswith("graphprog."):
    raise ImportError(
        f"the folder {__name__}/ is imported as graphprog.{__name__}: under the bare name every "
        f"class in it would exist twice. Try: import graphprog.{__name__}"
    )

import importlib.metadata
from typing import TYPE_CHECKING, Any

from graphprog.backends.onnxruntime.distributions import warn_about_rival_onnxruntimes
from graphprog.utils.lazy import load

if TYPE_CHECKING:
    from graphprog.backends import onnx, onnxruntime, pytorch, triton

ENTRY_POINTS = "graphprog.backends"
"""Entry point group by which other packages add backends."""

_OWN = ("onnx", "onnxruntime", "pytorch", "triton")

__all__ = ["ENTRY_POINTS", "onnx", "onnxruntime", "pytorch", "triton"]

warn_about_rival_onnxruntimes()


def __getattr__(name: str) -> Any:
    if name in _OWN:
        return load(f"{__name__}.{name}")
    if not name.startswith("_"):
        for entry in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
            return load("graphprog.backends.parity.report:checked_backend")(name, entry.load())
    raise AttributeError(f"graphprog has no backend {name!r}; it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    entries = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return sorted({*_OWN, *(entry.name for entry in entries)})
