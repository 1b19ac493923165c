"""Files of saved programs, whole and broken, made byte by byte."""

from __future__ import annotations

import json
import struct
from typing import Any

import safetensors.torch
import torch

from graphprog.io import artifact

FORMAT = {"name": "graphprog", "version": 1}
DOCUMENT = {"pipeline": "a ; b", "labels": ["null", "één"], "training": {"accuracy": 0.95}}


def some_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "program.border.value": torch.randn(3, 4, 5, generator=generator),
        "program.align.counts": torch.arange(6).reshape(2, 3),
        "program.flag": torch.tensor(True),
        "program.empty": torch.zeros(0, 3, dtype=torch.float16),
    }


def pack(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def pack_document(text: str, tensors: dict[str, Any] | None = None, body: bytes = b"") -> bytes:
    """Pack a file, with its checksum where the tensors can be read at all."""
    metadata = {"graphprog": text}
    bare = pack({"__metadata__": metadata, **(tensors or {})}, body)
    try:
        metadata["checksum"] = artifact.checksum(text, safetensors.torch.load(bare))
    except Exception:  # whoever tests refusals packs anything
        return bare
    return pack({"__metadata__": metadata, **(tensors or {})}, body)


VALID = pack_document(
    json.dumps({"format": FORMAT}),
    {
        "program.a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "program.b": {"dtype": "BOOL", "shape": [3], "data_offsets": [24, 27]},
    },
    bytes(24) + b"\x01\x00\x01",
)
