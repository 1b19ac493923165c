"""A tokenizer whose tokens are the bytes of a text."""

from __future__ import annotations

from typing import Any


class Bytes:
    """A tokenizer whose tokens are the bytes of a text."""

    eos_token_id = None

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": list(text.encode())}

    def decode(self, ids: Any, **options: Any) -> str:
        return bytes(int(number) for number in ids).decode(errors="replace")
