"""Files of saved programs, whole and broken, made byte by byte."""

from __future__ import annotations

import json
import struct
from typing import Any

import torch

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
    return pack({"__metadata__": {"graphprog": text}, **(tensors or {})}, body)


VALID = pack_document(
    json.dumps({"format": FORMAT}),
    {
        "program.a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "program.b": {"dtype": "BOOL", "shape": [3], "data_offsets": [24, 27]},
    },
    bytes(24) + b"\x01\x00\x01",
)
