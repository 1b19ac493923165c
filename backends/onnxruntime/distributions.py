"""Checking that only one distribution of ONNX Runtime is installed."""

from __future__ import annotations

import warnings
from importlib import metadata

# Each of these overwrites the module `onnxruntime` of the others.
ONNXRUNTIME_DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-directml",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-training",
)


def installed_onnxruntimes() -> tuple[str, ...]:
    """The installed distributions that provide the module ``onnxruntime``, as ``name version``."""
    found = []
    for name in ONNXRUNTIME_DISTRIBUTIONS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


def warn_about_rival_onnxruntimes() -> None:
    """Warn when several distributions of ONNX Runtime overwrite one another.

    They share one module, so the last installed files win, and removing one distribution removes
    files of the other: a GPU may silently be unused, or the import may fail.

    Warns:
        RuntimeWarning: more than one is installed; names them and the commands that repair it.
    """
    found = installed_onnxruntimes()
    if len(found) < 2:
        return
    names = [entry.split()[0] for entry in found]
    wanted = "onnxruntime-gpu" if "onnxruntime-gpu" in names else "onnxruntime"
    warnings.warn(
        f"{' and '.join(found)} are installed together, and overwrite one another. "
        f"Try: pip uninstall --yes {' '.join(names)} && pip install {wanted}",
        RuntimeWarning,
        stacklevel=2,
    )
