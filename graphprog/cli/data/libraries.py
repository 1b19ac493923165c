"""Data sets of libraries: those of scikit-learn, and of ``datasets`` on disk or by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphprog.cli.data.data_name import DataName
from graphprog.cli.data.examples import Examples
from graphprog.cli.data.tables import chosen_columns
from graphprog.errors import DataError
from graphprog.sources.library import library, root_of
from graphprog.sources.model_name import nearest


def read_packaged(name: str) -> Examples:
    """Read a set that scikit-learn brings; ``digits`` are images [1, 8, 8] in [0, 1]."""
    sets = library("sklearn.datasets", "sklearn: data", "scikit-learn")
    found = getattr(sets, f"load_{name}")()
    place = f"sklearn:{name}"
    if name == "digits":
        images = (found.images / 16).astype(np.float32)[:, None]
        return Examples("array", images, found.target.tolist(), tuple("0123456789"), place)
    classes = tuple(map(str, getattr(found, "target_names", ())))
    return Examples("array", found.data.astype(np.float32), found.target.tolist(), classes, place)


def read_hub(name: DataName, given: str | Sequence[str] | None, label: str | None) -> Examples:
    """Read a data set that ``datasets`` wrote into a folder, or one on the Hugging Face Hub.

    Raises:
        DataError: the library cannot read it, or has no such split or column.
    """
    data = _opened(name)
    names, label = chosen_columns(name.text, data.column_names, given, label)
    if len(names) > 1:
        values = np.stack([np.asarray(data[one], np.float32) for one in names], 1)
        return Examples("array", values, *_labels(data, label), name.text)
    feature = data.features[names[0]]
    kinds = {"Image": "image", "Audio": "audio"}
    kind = kinds.get(type(feature).__name__, "array")
    if getattr(feature, "dtype", "") in ("string", "large_string"):
        kind = "text"
    if kind in kinds.values():  # files, which are decoded as those of folders are
        data = data.cast_column(names[0], type(feature)(decode=False))
    inputs: Sequence[Any] | np.ndarray = _Column(data, names[0])
    if kind == "array":
        inputs = np.asarray(data[names[0]], np.float32)
    return Examples(kind, inputs, *_labels(data, label), name.text)


def _opened(name: DataName) -> Any:
    datasets = library("datasets", "hf: data")
    try:
        if Path(name.rest).is_dir() and not any(Path(name.rest).glob("*.parquet")):
            data = datasets.load_from_disk(name.rest)
        else:
            data = datasets.load_dataset(name.rest, name.options.get("config"))
    except Exception as error:  # whatever the library raises
        raise DataError(
            f"{name.text}: datasets cannot read it: {root_of(error):.300}",
            ["save the data set with save_to_disk where there is a network, and name the folder"],
        ) from error
    if hasattr(data, "column_names") and isinstance(data.column_names, list):
        return data
    split = name.options.get("split", "train")
    if split not in data:
        raise DataError(
            f"{name.text}: has no split {split!r}{nearest(split, list(data))}",
            [f"{name.text.partition('#')[0]}#split={one}" for one in data],
        )
    return data[split]


def _labels(data: Any, label: str) -> tuple[list[Any], tuple[str, ...]]:
    names = getattr(data.features[label], "names", None) or ()
    return list(data[label]), tuple(names)


class _Column(Sequence[Any]):
    """A column, read when its cells are asked for; files are bytes or paths."""

    def __init__(self, data: Any, name: str) -> None:
        self.data = data
        self.name = name

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, number: Any) -> Any:
        cell = self.data[int(number)][self.name]
        if isinstance(cell, dict):
            return cell.get("bytes") or Path(str(cell.get("path")))
        return cell
