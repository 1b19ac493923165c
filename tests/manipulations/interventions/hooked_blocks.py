"""A GPT-2 whose second block is changed by a hook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LENGTHS = (6, 4, 9)  # tokens of each row


def call(length: int = 9) -> dict[str, Tensor]:
    ids = torch.randint(1, 90, (3, length), generator=torch.Generator().manual_seed(4))
    mask = (torch.arange(length) < torch.tensor(LENGTHS)[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask}


def hooked(model: Any, given: dict[str, Tensor], change: Callable[[Tensor], None]) -> Tensor:
    """Logits with the output of block 1 changed in place."""

    def hook(_module: Any, _given: Any, result: Any) -> Any:
        value = (result[0] if isinstance(result, tuple) else result).clone()
        change(value)
        return (value, *result[1:]) if isinstance(result, tuple) else value

    handle = model.transformer.h[1].register_forward_hook(hook)
    try:
        with torch.no_grad():
            found: Tensor = model(**given, use_cache=False).logits
    finally:
        handle.remove()
    return found


def logits(task: Any, given: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        found: Tensor = task(**given, use_cache=False)["logits"]
    return found
