"""Files of arrays: ``.npy`` and ``.npz``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graphprog.cli.data.examples import Examples
from graphprog.cli.data.tables import chosen_columns
from graphprog.errors import DataError


def read_arrays(path: str, given: str | Sequence[str] | None, label: str | None) -> Examples:
    """Read arrays of inputs and labels, nothing that is pickled; bytes [N, ...] are images.

    Raises:
        DataError: an array is missing, is not what it should be, or the lengths differ.
    """
    if path.lower().endswith(".npy"):
        if label is None:
            raise DataError(f"{path}: where are the labels?", ['label = "labels.npy"'])
        inputs, labels = loaded(path), loaded(label)
        if isinstance(inputs, dict) or isinstance(labels, dict):
            raise DataError(f"{label}: not a .npy file")
    else:
        arrays = loaded(path)
        if not isinstance(arrays, dict):
            raise DataError(f"{path}: holds one array without a name")
        names, label = chosen_columns(path, list(arrays), given, label)
        if len(names) > 1:
            raise DataError(f"{path}: several arrays of inputs", ["package.module:function"])
        inputs, labels = arrays[names[0]], arrays[label]
    if inputs.ndim < 2 or labels.ndim != 1 or len(inputs) != len(labels):
        raise DataError(
            f"{path}: inputs {list(inputs.shape)} and labels {list(labels.shape)} are not [N, ...] "
            "and [N]"
        )
    kind = "image" if inputs.dtype == np.uint8 and inputs.ndim in (3, 4) else "array"
    return Examples(kind, inputs, labels.tolist(), (), path)


def loaded(path: str) -> np.ndarray | dict[str, np.ndarray]:
    """Read an array, or arrays by name.

    Raises:
        DataError: the file holds something else.
    """
    try:
        found = np.load(Path(path), allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a file of arrays: {error}") from error
