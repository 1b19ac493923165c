"""Random changes of training images, by transforms of torchvision or albumentations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from graphprog.errors import DataError, GraphprogError
from graphprog.sources.library import library
from graphprog.sources.model_name import nearest

Change = Callable[[np.ndarray], np.ndarray]
"""From an image uint8 [H, W, C] to one of the same shape."""

LIBRARIES = {"torchvision": "torchvision.transforms.v2", "albumentations": "albumentations"}


def change_of(name: str, options: Mapping[str, Any]) -> Change:
    """Return a transform by its name.

    Args:
        name: such as ``torchvision:RandomHorizontalFlip`` or ``albumentations:Rotate``.
        options: its arguments.

    Raises:
        DataError: there is no such transform or argument.
        CaptureError: the library is not installed; has the command that installs it.
    """
    scheme, _, word = name.partition(":")
    if scheme not in LIBRARIES or not word:
        raise DataError(
            f"{name!r} is not torchvision:NAME or albumentations:NAME{nearest(scheme, LIBRARIES)}",
            ["torchvision:RandomHorizontalFlip", "albumentations:HorizontalFlip"],
        )
    module = library(LIBRARIES[scheme], f"augmentation by {scheme}:")
    kind = getattr(module, word, None)
    if not inspect.isclass(kind):
        known = [one for one in dir(module) if inspect.isclass(getattr(module, one, None))]
        raise DataError(f"{scheme} has no transform {word}{nearest(word, known)}")
    known = [*inspect.signature(kind).parameters]
    for option in options:
        if option not in known:
            raise DataError(
                f"{name} takes no {option!r}{nearest(option, known)}",
                [f"one of {', '.join(known)}"],
            )
    try:
        made = kind(**options)
    except Exception as error:  # whatever the library raises
        raise DataError(f"{name}: {type(error).__name__}: {error}") from error
    return _Torchvision(made) if scheme == "torchvision" else _Albumentations(made, module)


def changed(image: np.ndarray, changes: Sequence[Change], where: str) -> np.ndarray:
    """Apply changes in order.

    Raises:
        DataError: one fails, or returns an image of another shape.
    """
    found = image
    for one in changes:
        try:
            found = one(found)
        except GraphprogError:
            raise
        except Exception as error:  # whatever the library raises
            raise DataError(f"{where}: {one} failed: {type(error).__name__}: {error}") from error
        if found.shape != image.shape or found.dtype != np.uint8:
            raise DataError(
                f"{where}: {one} made {found.dtype} {list(found.shape)} of an image "
                f"uint8 {list(image.shape)}",
                ["crop to the size of the images, such as size = [64, 64]"],
            )
    return found


class _Torchvision:
    """A transform of torchvision on an array; it draws from PyTorch's random numbers."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, image: np.ndarray) -> np.ndarray:
        made = self.transform(torch.from_numpy(image.transpose(2, 0, 1).copy()))
        return np.asarray(made.numpy().transpose(1, 2, 0))

    def __str__(self) -> str:
        return f"torchvision:{type(self.transform).__name__}"


class _Albumentations:
    """A transform of albumentations; its seed is drawn from PyTorch's random numbers."""

    def __init__(self, transform: Any, module: Any) -> None:
        self.transform = transform
        self.compose = module.Compose([transform])

    def __call__(self, image: np.ndarray) -> np.ndarray:
        self.compose.set_random_seed(int(torch.randint(2**31, ())))
        found = np.asarray(self.compose(image=image)["image"])
        return found[..., None] if found.ndim == 2 else found

    def __str__(self) -> str:
        return f"albumentations:{type(self.transform).__name__}"
