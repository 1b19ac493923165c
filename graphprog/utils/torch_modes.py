"""The modes of torch that a caller may be in, left for a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_KINDS = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def plain_modes() -> Iterator[None]:
    """Run the block without autocast and inference mode, and with gradients.

    What is built inside does not depend on where it is called.
    """
    with ExitStack() as left:
        for kind in _KINDS:
            if torch.is_autocast_enabled(kind):
                left.enter_context(torch.autocast(kind, enabled=False))
        if torch.is_inference_mode_enabled():
            left.enter_context(torch.inference_mode(mode=False))
        left.enter_context(torch.enable_grad())
        yield
