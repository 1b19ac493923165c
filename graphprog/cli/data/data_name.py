"""Names of data: a path, ``hf:name``, ``sklearn:digits`` or ``package.module:function``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from graphprog.errors import CaptureError, DataError
from graphprog.sources.factory import attribute_of
from graphprog.sources.model_name import FACTORY, nearest

IMAGES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
AUDIO = frozenset((".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif"))
TABLES = frozenset((".csv", ".tsv", ".jsonl"))
ARRAYS = frozenset((".npy", ".npz"))
PACKAGED = ("digits", "iris", "wine", "breast_cancer", "diabetes")
"""Data sets that scikit-learn brings with it."""

FORMS = [
    "a folder of classes, or a .csv, .tsv, .jsonl, .npz or .npy file",
    "hf:owner/name or hf:folder, with #split=test for another split",
    f"sklearn:{', sklearn:'.join(PACKAGED)}",
    "package.module:function",
]
"""The forms of a name, for messages."""

_ON_DISK = ("state.json", "dataset_dict.json")


@dataclasses.dataclass(frozen=True)
class DataName:
    """A name in its parts.

    Attributes:
        text: the name as it was given.
        scheme: ``folder``, ``table``, ``arrays``, ``hf``, ``sklearn`` or ``python``.
        rest: what the reader of the scheme reads.
        options: what stands after ``#``.
    """

    text: str
    scheme: str
    rest: str
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)


def parse_data_name(text: str) -> DataName:
    """Take a name apart, and check that what it names can exist; nothing is read.

    Raises:
        DataError: there is no such file, folder, set, module or option.
    """
    path = Path(text)
    if path.is_dir():
        scheme = "hf" if any((path / one).is_file() for one in _ON_DISK) else "folder"
        return DataName(text, scheme, text)
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "hf":
        return _of_hub(text, rest)
    if colon and scheme == "sklearn":
        if rest not in PACKAGED:
            raise DataError(f"scikit-learn brings no {rest!r}{nearest(rest, PACKAGED)}", FORMS[2:3])
        return DataName(text, scheme, rest)
    kinds = {**dict.fromkeys(TABLES, "table"), **dict.fromkeys(ARRAYS, "arrays")}
    if (kind := kinds.get(path.suffix.lower())) is not None:
        if not path.is_file():
            raise DataError(f"{text}: no such file", ["check the path"])
        return DataName(text, kind, text)
    if FACTORY.fullmatch(text):
        try:
            attribute_of(text)
        except CaptureError as error:
            raise DataError(error.what, error.remedies) from error
        return DataName(text, "python", text)
    if path.is_file():
        raise DataError(f"{text}: a {path.suffix or 'file without suffix'} is not data", FORMS)
    raise DataError(f"{text}: there is no such folder, file or name of data", FORMS)


def _of_hub(text: str, rest: str) -> DataName:
    place, _, after = rest.partition("#")
    options = dict(part.partition("=")[::2] for part in after.split(",") if part)
    for option in options:
        if option not in ("split", "config"):
            raise DataError(
                f"{text}: unknown option #{option}{nearest(option, ('split', 'config'))}",
                ["hf:name#split=test,config=en"],
            )
    return DataName(text, "hf", place, options)
