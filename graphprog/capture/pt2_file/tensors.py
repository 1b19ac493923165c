"""The tensors of a ``.pt2`` file: each within the bytes that are stored for it."""

from __future__ import annotations

from typing import Any

from graphprog.capture.pt2_file.archive import CONSTANTS, FOLDERS, Archive
from graphprog.capture.pt2_file.program import checked
from graphprog.errors import FileError
from graphprog.ir.graph_file.read import WEIGHT_PATH

_WIDTHS = {
    **dict.fromkeys((1, 2, 12, 29, 30, 31, 32, 33), 1),
    **dict.fromkeys((3, 6, 13, 28), 2),
    **dict.fromkeys((4, 7, 9, 34), 4),
    **dict.fromkeys((5, 8, 10, 35), 8),
    11: 16,
}
"""Bytes per number, by PyTorch's code of the dtype in files."""

_BOOL = 12
_MOST_REPEATED = 2**24


def checked_tensors(document: Any, archive: Archive, name: str) -> dict[str, Any]:
    """Return what a file says of its weights or constants.

    Raises:
        FileError: a tensor is pickled, or is not within the bytes that the archive has for it.
    """
    entries = document.get("config") if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        raise FileError(f"{name} does not list tensors")
    start = FOLDERS[name]
    found: dict[str, Any] = {}
    dtypes: dict[str, int] = {}
    for path, entry in entries.items():
        if not WEIGHT_PATH.fullmatch(path):
            raise FileError(f"{path!r:.80} is not the path of a weight")
        kind = entry.get("path_name") if isinstance(entry, dict) else None
        member = f"{start.rpartition('/')[0]}/{kind}"
        if not isinstance(kind, str) or not member.startswith(start) or entry.get("use_pickle"):
            what = "constant" if name == CONSTANTS else "weight"
            raise FileError(f"the {what} {path!r:.80} is a pickled object")
        found[path] = checked(entry, path)
        dtype = _check_tensor(found[path].get("tensor_meta"), path, archive, member)
        if dtypes.setdefault(member, dtype) != dtype:
            raise FileError(f"weight {path!r:.80} shares its bytes with one of another dtype")
    return {"config": found}


def _check_tensor(meta: Any, path: str, archive: Archive, member: str) -> int:
    stored = archive.size(member)
    if stored is None:
        raise FileError(f"weight {path!r:.80}: there is no {member}", ["get the file again"])
    dtype, lists = (meta or {}).get("dtype"), [(meta or {}).get(x) for x in ("sizes", "strides")]
    if type(dtype) is not int or dtype not in _WIDTHS:
        raise FileError(f"weight {path!r:.80} has an unknown dtype")
    sizes, strides = (list(map(_whole, found)) for found in lists if isinstance(found, list))
    offset = _whole(meta.get("storage_offset"))
    if len(sizes) != len(strides) or len(sizes) > 64:
        raise FileError(f"weight {path!r:.80} has {len(sizes)} sizes and {len(strides)} strides")
    count, last = 1, offset
    for size, stride in zip(sizes, strides, strict=True):
        count *= size
        last += (size - 1) * stride
    held = stored // _WIDTHS[dtype]
    if stored % _WIDTHS[dtype] or (count and last >= held) or count > max(held, _MOST_REPEATED):
        raise FileError(
            f"weight {path!r:.80} has shape {sizes} and strides {strides}, which is more than the "
            f"{stored} bytes of {member}"
        )
    if dtype == _BOOL and max(archive.read(member), default=0) > 1:
        raise FileError(f"weight {path!r:.80} has bytes that are not booleans")
    return dtype


def _whole(value: Any) -> int:
    found = value.get("as_int") if isinstance(value, dict) else None
    if type(found) is not int or found < 0:
        raise FileError(f"{value!r:.80} is not a size of a stored tensor")
    return found
