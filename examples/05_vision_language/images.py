"""Real digits as colored pictures with captions, and the same digits in a domain of their own."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import torch
from sklearn.datasets import load_digits
from torch.nn import functional

SIDE = 32
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHAPES = (
    "one closed ring",
    "a single stroke",
    "an arch over a flat base",
    "two open curves",
    "two crossing strokes",
    "a flat top over an open curve",
    "a long curve over a ring",
    "a flat top over a slanted stroke",
    "two closed rings",
    "a ring over a long tail",
)
"""What each digit looks like, in words that captions use."""

COLORS = {
    "white": (1.0, 1.0, 1.0),
    "yellow": (1.0, 0.95, 0.3),
    "pink": (1.0, 0.7, 0.85),
    "green": (0.5, 1.0, 0.5),
}
"""Of the ink."""

GROUNDS = {"black": (0.0, 0.0, 0.0), "blue": (0.05, 0.1, 0.4), "brown": (0.3, 0.15, 0.0)}

CAPTIONS = (
    "a photo of a {name}",
    "a picture of the digit {name}",
    "the number {name}",
    "a {size} {name}",
    "a {color} {name} on {ground}",
    "a photo of a {size} {color} {name}",
    "the digit {name} in {color} on a {ground} ground",
    "a {lean} {name}",
    "a {lean} {color} {name}",
    "a photo of a {name} : {shape}",
    "{shape}",
    "{shape} in {color}",
)
"""What is said of a picture of the source domain; one of them is drawn for each."""

LEAN = 20.0
"""Degrees by which digits of the source domain lean at most, to either side."""

Examples = tuple[torch.Tensor, torch.Tensor]
"""Pictures in [0, 1], float32 [N, 3, 32, 32], and their digits, int64 [N]."""


def digits() -> dict[str, Examples]:
    """Ink in [0, 1], float32 [N, 1, 8, 8], and labels: 900 of the source, 400 to adapt, the test.

    No digit is in two of them.
    """
    ink, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    pictures = torch.tensor(ink, dtype=torch.float32).reshape(-1, 1, 8, 8)[order] / 16
    numbers = torch.tensor(labels)[order]
    parts = zip(pictures.split([900, 400, 497]), numbers.split([900, 400, 497]), strict=True)
    return dict(zip(("source", "adapt", "test"), parts, strict=True))


@dataclasses.dataclass(frozen=True)
class Look:
    """How a digit is shown."""

    angle: float
    scale: float
    color: str
    ground: str

    def words(self, digit: int) -> dict[str, str]:
        """What the fields of captions say of it."""
        leans = "upright" if abs(self.angle) < LEAN / 3 else "left" if self.angle > 0 else "right"
        return {
            "name": NAMES[digit],
            "shape": SHAPES[digit],
            "size": "small" if self.scale < 0.8 else "large",
            "lean": "upright" if leans == "upright" else f"leaning {leans}",
            "color": self.color,
            "ground": self.ground,
        }


@dataclasses.dataclass(frozen=True)
class Source:
    """Pictures of the source domain, each with a caption that is true of it.

    Attributes:
        pictures: float32 [N, 3, 32, 32] in [0, 1].
        captions: one a picture.
        true: whether caption j is true of picture i, bool [N, N].
    """

    pictures: torch.Tensor
    captions: list[str]
    true: torch.Tensor


def source(ink: torch.Tensor, labels: torch.Tensor, chance: random.Random) -> Source:
    """Digits [N, 1, 8, 8] with looks and captions by chance."""
    looks = []
    for _ in labels:
        color, ground = chance.choice(list(COLORS)), chance.choice(list(GROUNDS))
        looks.append(Look(chance.uniform(-LEAN, LEAN), chance.uniform(0.6, 1), color, ground))
    words = [look.words(digit) for look, digit in zip(looks, labels.tolist(), strict=True)]
    chosen = [chance.choice(CAPTIONS) for _ in words]
    captions = [form.format(**own) for form, own in zip(chosen, words, strict=True)]
    said = {form: [form.format(**own) for own in words] for form in CAPTIONS}
    true = [
        [said[form][row] == caption for form, caption in zip(chosen, captions, strict=True)]
        for row in range(len(words))
    ]
    return Source(show(ink, looks, chance), captions, torch.tensor(true))


def show(ink: torch.Tensor, looks: Sequence[Look], chance: random.Random) -> torch.Tensor:
    """Digits [N, 1, 8, 8] as pictures [N, 3, 32, 32] in [0, 1], each off the middle by chance."""
    angles = torch.tensor([look.angle for look in looks]).deg2rad()
    zoom = torch.tensor([1 / look.scale for look in looks])
    off = torch.tensor([[chance.uniform(-0.1, 0.1) for _ in range(2)] for _ in looks])
    turn = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], 1)
    affine = torch.cat([turn.reshape(-1, 2, 2) * zoom[:, None, None], off[:, :, None]], 2)
    size = (len(looks), 1, SIDE, SIDE)
    grid = functional.affine_grid(affine, size, align_corners=False)
    drawn = functional.grid_sample(ink, grid, align_corners=False)
    color, ground = (
        torch.tensor([table[name] for name in names])[:, :, None, None]
        for table, names in (
            (COLORS, [look.color for look in looks]),
            (GROUNDS, [look.ground for look in looks]),
        )
    )
    return ground + (color - ground) * drawn


def shifted(ink: torch.Tensor, seed: int) -> torch.Tensor:
    """The same digits in a domain that captions know nothing of: faint, far out of line.

    They lean by 30 to 50 degrees, in faint ink on a ground with stripes, with noise.
    """
    chance = random.Random(seed)
    looks = [Look(chance.uniform(30, 50), chance.uniform(0.7, 1), "white", "black") for _ in ink]
    paper = show(ink, looks, chance)
    generator = torch.Generator().manual_seed(seed)
    phase = torch.rand(len(ink), 1, 1, 1, generator=generator) * 6.28
    stripes = 0.5 + 0.5 * torch.sin(torch.arange(SIDE) * 0.8 + phase)
    noise = torch.randn(len(ink), 1, SIDE, SIDE, generator=generator)
    return (0.25 + 0.5 * paper + 0.2 * stripes + 0.1 * noise).clamp(0, 1)
