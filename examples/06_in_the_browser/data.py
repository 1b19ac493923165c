"""What the programs are trained on: pictures of 8×8 cells, as the page makes them of a drawing."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

CELLS = 8
SHAPES = (
    "circle", "square", "triangle", "plus", "times",
    "upright", "level", "rising", "falling", "tick",
)  # fmt: skip
Split = tuple[torch.Tensor, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Target:
    """A question about a drawing.

    Attributes:
        name: of the program.
        question: as the page asks it.
        labels: the ten answers.
        train: pictures [N, 1, 8, 8] in [0, 1], dark on white, and labels int64 [N]; ``test`` too.
    """

    name: str
    question: str
    labels: tuple[str, ...]
    train: Split
    test: Split


def targets() -> list[Target]:
    """A digit, a digit seen from across the table, a simple shape."""
    data = load_digits()
    ink, labels = data.images.astype(np.float32) / 16, data.target
    digits = tuple("0123456789")
    turned = np.ascontiguousarray(ink[:, ::-1, ::-1])
    return [
        _target("digit", "Which digit is it?", digits, ink, labels),
        _target("across", "Which digit, seen from across the table?", digits, turned, labels),
        _target("shape", "Which shape is it?", SHAPES, *_shapes()),
    ]


def _target(
    name: str, question: str, labels: tuple[str, ...], ink: np.ndarray, classes: np.ndarray
) -> Target:
    """60 % of each class train, 20 % choose the epoch with them left out, 20 % test."""
    pictures = 1 - torch.tensor(ink)[:, None]
    answers = torch.tensor(classes)
    train, test = train_test_split(
        np.arange(len(answers)), test_size=0.2, stratify=classes, random_state=0
    )
    return Target(
        name, question, labels, (pictures[train], answers[train]), (pictures[test], answers[test])
    )


def _shapes(each: int = 160, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    pairs = [
        (_drawn(name, random), label) for label, name in enumerate(SHAPES) for _ in range(each)
    ]
    return np.stack([ink for ink, _ in pairs]), np.array([label for _, label in pairs])


def _drawn(name: str, random: np.random.Generator) -> np.ndarray:
    """Ink float32 [8, 8] of a shape drawn by an unsteady hand."""
    side = 160
    picture = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(picture)
    width = int(random.integers(9, 17))
    turn = random.normal(0, 0.09)
    stretch = random.uniform(0.85, 1.15, 2)
    for stroke in _strokes(name):
        points = np.array(stroke) * stretch + random.normal(0, 0.035, (len(stroke), 2))
        rotation = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        points = points @ np.array(rotation) * side * 0.36 + side / 2
        path = [(float(x), float(y)) for x, y in points]
        pen.line(path, fill=255, width=width, joint="curve")
        for x, y in path:
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    return cells(np.asarray(picture, np.float32) / 255)


def _strokes(name: str) -> list[list[tuple[float, float]]]:
    """Lines through points of [-1, 1]², x to the right and y downwards."""
    corners = {
        "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8), (-0.8, -0.8)],
        "triangle": [(0.0, -0.9), (0.9, 0.75), (-0.9, 0.75), (0.0, -0.9)],
        "upright": [(0.0, -0.9), (0.0, 0.0), (0.0, 0.9)],
        "level": [(-0.9, 0.0), (0.0, 0.0), (0.9, 0.0)],
        "rising": [(-0.8, 0.8), (0.0, 0.0), (0.8, -0.8)],
        "falling": [(-0.8, -0.8), (0.0, 0.0), (0.8, 0.8)],
        "tick": [(-0.8, 0.1), (-0.25, 0.7), (0.8, -0.7)],
    }
    if name == "circle":
        angles = np.linspace(0, 2 * math.pi, 25)
        return [[(0.85 * math.cos(a), 0.85 * math.sin(a)) for a in angles]]
    crossed = {"plus": ("upright", "level"), "times": ("rising", "falling")}
    return [corners[part] for part in crossed.get(name, (name,))]


def cells(ink: np.ndarray) -> np.ndarray:
    """Fit ink [H, W] into 8×8 cells: the longer side fills them, the shorter is in the middle.

    Each cell has the mean of the ink on its area. ``page/drawing.js`` does the same.
    """
    rows, columns = np.nonzero(ink.max(1) > 0.5)[0], np.nonzero(ink.max(0) > 0.5)[0]
    found = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = max(found.shape)
    shares = [_shares(length, side) for length in found.shape]
    return (shares[0] @ found @ shares[1].T).astype(np.float32)


def _shares(length: int, side: int) -> np.ndarray:
    """What share of each cell [8, length] a pixel has, of a length in the middle of a side."""
    pixels = np.arange(length) + (side - length) // 2
    edges = np.arange(CELLS + 1)[:, None] * side / CELLS
    overlaps = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.maximum(overlaps, 0) * CELLS / side
