"""Patterns of a program as pictures in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from rich.text import Text

_WIDTH = 32
"""Columns of a picture."""


def thumbnails(tensors: Mapping[str, torch.Tensor]) -> Iterator[Text]:
    """Draw the tensors that have the shape of an image, with name and range."""
    for name, tensor in tensors.items():
        if tensor.ndim == 3 and tensor.shape[0] in (1, 3) and min(tensor.shape[1:]) > 1:
            title = f"\n{name}, from {tensor.min():.3g} to {tensor.max():.3g}\n"
            yield Text(title).append_text(_half_blocks(tensor.float().numpy()))


def _half_blocks(pattern: np.ndarray) -> Text:
    """Draw a pattern [C, H, W] of 1 or 3 channels in half blocks of 24-bit color.

    The smallest number is black, the largest full color.
    """
    height, width = pattern.shape[1:]
    across = min(_WIDTH, width)
    down = max(1, round(height * across / width))
    rows, columns = (np.arange(n) * size // n for n, size in ((down, height), (across, width)))
    picked = pattern[:, rows[:, None], columns].repeat(3 // len(pattern), 0)
    span = float(np.ptp(picked)) or 1.0
    levels = np.rint((picked - picked.min()) / span * 255).astype(int).transpose(1, 2, 0)
    text = Text()
    for top in range(0, down, 2):
        for column in range(across):
            colors = [f"rgb({','.join(map(str, one[column]))})" for one in levels[top : top + 2]]
            text.append("▀", " on ".join(colors))
        text.append("\n")
    return text
