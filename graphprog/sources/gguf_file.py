"""Models in GGUF files of llama.cpp, read by transformers."""

from __future__ import annotations

from pathlib import Path

from graphprog.errors import FileError
from graphprog.sources.library import library
from graphprog.sources.model_name import ModelName
from graphprog.sources.source import Source
from graphprog.sources.transformers_models import source_of


def load_gguf(name: ModelName) -> Source:
    """Load ``gguf:path`` or ``path.gguf``; quantized weights become floats.

    Options: ``#class=``, ``#tokenizer=`` and ``#dtype=``, as for ``hf:``.

    Raises:
        CaptureError: transformers or gguf is not installed, or transformers does not read this
            architecture.
        FileError: there is no such file.
    """
    name.require_options(("class", "tokenizer", "dtype"))
    path = Path(name.rest)
    if not path.is_file():
        raise FileError(f"{path}: no such file")
    library("gguf", "a gguf: name")
    return source_of(name, str(path.parent), {"gguf_file": path.name})
