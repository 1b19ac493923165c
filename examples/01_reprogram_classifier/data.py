"""The two target tasks: handwritten digits, and squares to be counted."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

CLASSES = 10
Split = tuple[torch.Tensor, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Target:
    """A target task.

    Attributes:
        name: for the table.
        labels: names of the classes.
        side: side length of an image once it is placed on the canvas.
        lr: learning rate of the pattern, chosen on the validation split.
        train: images in [0, 1] [N, 1, H, W] and labels int64 [N]; the other splits likewise.
    """

    name: str
    labels: tuple[str, ...]
    side: int
    lr: float
    train: Split
    validation: Split
    test: Split

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.train[0].shape[1:])


def digits(seed: int = 0) -> Target:
    """scikit-learn's 1,797 handwritten digits, 8×8, dark on white: 1,077 / 360 / 360."""
    data = load_digits()
    images = 1 - torch.tensor(data.images / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(data.target)
    every = np.arange(len(labels))
    rest, test = train_test_split(every, test_size=360, stratify=labels, random_state=seed)
    train, validation = train_test_split(
        rest, test_size=360, stratify=labels[rest], random_state=seed
    )
    splits = [(images[index], labels[index]) for index in (train, validation, test)]
    return Target("digits", tuple("0123456789"), 48, 0.05, *splits)


def squares(seed: int = 0, sizes: tuple[int, int, int] = (1080, 300, 500)) -> Target:
    """One to ten white squares on black, one in each cell of a 4×4 grid on 36×36 pixels.

    The counting task of Elsayed et al. (ICLR 2019). Every square moves by up to 2 pixels in its
    cell, so that no picture occurs twice: on a fixed grid there are only 16 pictures of one
    square, and the splits would share them.
    """
    generator = np.random.default_rng(seed)
    seen: set[bytes] = set()
    splits = []
    for size in sizes:
        labels = generator.permutation(np.arange(size) % CLASSES)
        images = np.stack([_picture(int(label) + 1, generator, seen) for label in labels])
        splits.append((torch.tensor(images)[:, None], torch.tensor(labels)))
    return Target("squares", tuple(str(count) for count in range(1, 11)), 36, 0.2, *splits)


def _picture(count: int, generator: np.random.Generator, seen: set[bytes]) -> np.ndarray:
    """A picture that was not drawn before, float32 [36, 36]."""
    while True:
        picture = np.zeros((36, 36), np.float32)
        for cell in generator.choice(16, count, replace=False):
            down, right = generator.integers(0, 3, 2)
            top, left = cell // 4 * 9 + 1 + down, cell % 4 * 9 + 1 + right
            picture[top : top + 5, left : left + 5] = 1
        if picture.tobytes() not in seen:
            seen.add(picture.tobytes())
            return picture
