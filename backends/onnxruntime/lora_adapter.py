"""Programs as ``.onnx_adapter`` files, which ONNX Runtime itself applies, from any language.

In Python without graphprog::

    adapter = onnxruntime.LoraAdapter()
    adapter.Load("digits.onnx_adapter")
    options = onnxruntime.RunOptions()
    options.add_active_adapter(adapter)
    session.run(None, {"images": images}, options)
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import onnxruntime

from graphprog.backends.onnx_model.program_files import ROW
from graphprog.backends.onnxruntime.program_cache import Program
from graphprog.backends.onnxruntime.session import Session
from graphprog.errors import BackendError, FileError
from graphprog.utils.files import atomic_write

_NUMBERS = 2**31


def export_adapter(
    session: Session, program: Program, path: str | os.PathLike[str], version: int = 1
) -> None:
    """Write a program as an adapter of the file that a session runs.

    The adapter's model version is derived from the source's fingerprint: the same for all adapters
    of one source.

    Args:
        session: of a file exported with ``program="overridable"`` or ``"per_row"``. For the
            latter, the adapter is a stack of this one program, and ``program.row`` is all zeros.
        program: what :meth:`Session.run` takes for all rows.
        path: the file, whose name ends in ``.onnx_adapter``; written atomically.
        version: version of the adapter, for its users.

    Raises:
        BackendError: the session's program is folded or not in the file, or the program does not
            match it or is incomplete.
        FileError: the name has another ending, or the file cannot be written.

    Example:
        >>> session = gp.backends.onnxruntime.Session("task.onnx")
        >>> path = "mine.onnx_adapter"  # for applications of ONNX Runtime without Python
        >>> gp.backends.onnxruntime.export_adapter(session, "task.safetensors", path)
    """
    if not os.fspath(path).endswith(".onnx_adapter"):
        raise FileError(f"{os.fspath(path)}: the name of an adapter ends in .onnx_adapter")
    if session.program_inputs:  # some of ONNX Runtime's interfaces ask for every input by hand
        raise BackendError(
            f"{session.path}: adapters replace what a file holds, and it holds no program",
            ['export(task, path, program="overridable")'],
        )
    loaded = session.resolve(program)
    arrays = {name: np.ascontiguousarray(array) for name, array in loaded.tensors.items()}
    if session.document.per_row:
        arrays = session.per_row_inputs([loaded])
        del arrays[ROW]
    missing = (session.document.state.keys() & session.overridable.keys()) - arrays.keys()
    if missing:
        raise BackendError(f"the program has no {', '.join(sorted(missing))}")
    form = onnxruntime.AdapterFormat()
    form.set_adapter_version(version)
    form.set_model_version(zlib.crc32(str(session.document.source).encode()) % _NUMBERS)
    values = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()
    }
    form.set_parameters(values)

    def write(temporary: Path) -> None:
        form.export_adapter(os.fspath(temporary))

    atomic_write(path, write)
