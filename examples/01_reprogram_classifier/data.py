"""The two target tasks: handwritten digits, and squares to be counted."""

from __future__ import annotations

import dataclasses
import itertools

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


def squares(seed: int = 0, each: int = 200) -> Target:
    """One to ten white squares on black, in the cells of a 4×4 grid on 36×36 pixels.

    The counting task of Elsayed et al. (ICLR 2019). No picture is in two splits, so there are
    only the 16 pictures of one square and the 120 of two, and ``each`` of every other count;
    60 % of each class train, 15 % validate, 25 % test.
    """
    generator = np.random.default_rng(seed)
    pictures, labels = [], []
    for count in range(1, CLASSES + 1):
        every = list(itertools.combinations(range(16), count))
        chosen = generator.permutation(len(every))[:each]
        pictures += [_picture(every[index]) for index in chosen]
        labels += [count - 1] * len(chosen)
    images, classes = torch.tensor(np.stack(pictures))[:, None], torch.tensor(labels)
    train, rest = train_test_split(
        np.arange(len(labels)), train_size=0.6, stratify=labels, random_state=seed
    )
    validation, test = train_test_split(
        rest, train_size=0.375, stratify=classes[rest], random_state=seed
    )
    splits = [(images[index], classes[index]) for index in (train, validation, test)]
    names = tuple(str(count) for count in range(1, CLASSES + 1))
    return Target("squares", names, 36, 0.1, *splits)


def _picture(cells: tuple[int, ...]) -> np.ndarray:
    """Float32 [36, 36] with a square of 5×5 in the middle of each of these cells."""
    picture = np.zeros((36, 36), np.float32)
    for cell in cells:
        top, left = cell // 4 * 9 + 2, cell % 4 * 9 + 2
        picture[top : top + 5, left : left + 5] = 1
    return picture
