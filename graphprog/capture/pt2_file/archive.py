"""The archive of a ``.pt2`` file: which members it may have, and their bytes."""

from __future__ import annotations

import re
import zipfile
from typing import BinaryIO

from graphprog.errors import FileError

PROGRAM = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
FOLDERS = {WEIGHTS: "data/weights/weight_", CONSTANTS: "data/constants/tensor_"}
"""Where the tensors of a configuration are."""

_MARKS = ("archive_format", "archive_version", "byteorder", ".data/version")
_NEEDED = (PROGRAM, WEIGHTS, CONSTANTS, *_MARKS[:2])
_UNREAD = ("data/sample_inputs/model.pt", ".data/serialization_id")
_TENSOR = re.compile("|".join(f"{re.escape(start)}[0-9]{{1,7}}" for start in FOLDERS.values()))
_AGAIN = ("get the file again", "write it again with torch.export.save(program, path)")
_MOST_MEMBERS = 200_000
_KNOWN = {
    "data/constants/custom_obj_": "a pickled object",
    "data/constants/opaque_obj_": "a pickled object",
    "data/aotinductor/": "compiled code",
    "models/": "a second program",
    "serialized_": "pickles, as files of PyTorch before 2.8 do",
    "data/weights/": "pickled, or of a second program",
    "data/constants/": "pickled, or of a second program",
}


class Archive:
    """The members of an archive, by their names below its folder.

    Attributes:
        tensors: names of the members that hold the bytes of tensors.
        marks: names of those that describe the archive itself.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Open an archive.

        Raises:
            FileError: it is not an archive, or a member is not one that holds a model as data.
        """
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise FileError(f"not a readable .pt2 file: {error}", _AGAIN) from error
        infos = self._zip.infolist()
        if len(infos) > _MOST_MEMBERS:
            raise FileError(f"it has {len(infos)} members, more than that of any model")
        folders = {info.filename.partition("/")[0] for info in infos}
        if len(folders) != 1:
            raise FileError(f"its members are in {len(folders)} folders, not in one")
        self._members = {info.filename.partition("/")[2]: info for info in infos}
        if len(self._members) != len(infos):
            raise FileError("two of its members have the same name")
        for name, info in self._members.items():
            _check_member(name, info)
        length = file.seek(0, 2)
        if sum(info.file_size for info in infos) > length:
            raise FileError(f"its members are larger than its {length} bytes")
        for name in _NEEDED:
            if name not in self._members:
                raise FileError(f"not a file of torch.export.save: it has no {name}", _AGAIN)
        self.tensors = [name for name in self._members if _TENSOR.fullmatch(name)]
        self.marks = [name for name in _MARKS if name in self._members]
        if self.read("archive_format") != b"pt2":
            raise FileError("not a file of torch.export.save: its format is another", _AGAIN)
        if "byteorder" in self._members and self.read("byteorder") != b"little":
            raise FileError("its tensors are not stored in little-endian order")

    def size(self, name: str) -> int | None:
        """Return the number of bytes of a member, or None if there is none of that name."""
        return self._members[name].file_size if name in self._members else None

    def read(self, name: str, most: int | None = None) -> bytes:
        """Return the bytes of a member.

        Raises:
            FileError: they are damaged, or more than ``most``.
        """
        info = self._members[name]
        if most is not None and info.file_size > most:
            raise FileError(f"{name} is larger than {most >> 20} MiB")
        try:
            return self._zip.read(info)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
            raise FileError(f"{name} is damaged: {error}", _AGAIN) from error


def _check_member(name: str, info: zipfile.ZipInfo) -> None:
    known = name in (*_NEEDED, *_MARKS, *_UNREAD) or _TENSOR.fullmatch(name)
    if not known and not name.startswith("extra/"):  # texts of whoever wrote it, never read
        found = next((kind for start, kind in _KNOWN.items() if name.startswith(start)), None)
        raise FileError(
            f"it holds {name!r:.80}"
            + (f", which is {found}" if found else ", which no file of a model needs")
        )
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise FileError(f"{name!r:.80} is compressed or encrypted, as torch.export.save never does")
