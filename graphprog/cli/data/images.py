"""Image files and arrays of bytes as arrays of one shape."""

from __future__ import annotations

import dataclasses
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from graphprog.errors import DataError
from graphprog.ir.inputs import InputSpec
from graphprog.sources.library import library

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_PIXELS = 2**28


@dataclasses.dataclass(frozen=True)
class ImageForm:
    """What images become.

    Attributes:
        channels: 1, 3 or 4.
        height: in pixels.
        width: in pixels.
        first: whether channels come before rows.
        range: of the values.
    """

    channels: int
    height: int
    width: int
    first: bool = True
    range: tuple[float, float] = (0.0, 1.0)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an image."""
        sides = (self.height, self.width)
        return (self.channels, *sides) if self.first else (*sides, self.channels)

    @classmethod
    def of(cls, spec: InputSpec, low_high: tuple[float, float] | None) -> ImageForm:
        """Return the form of an input [B, C, H, W] or [B, H, W, C].

        Raises:
            DataError: the input takes no images of a fixed size.
        """
        sizes = [one for one in spec.shape[1:] if isinstance(one, int)]
        if len(spec.shape) == 4 and len(sizes) == 3 and spec.dtype.is_floating_point:
            for first, place in ((True, 0), (False, 2)):
                if sizes[place] in MODES:
                    channels = sizes.pop(place)
                    return cls(channels, sizes[0], sizes[1], first, low_high or (0.0, 1.0))
        raise DataError(f"the model takes {spec}, not images of one size")

    def pixels(self, image: Any, where: str) -> np.ndarray:
        """Return an image as uint8 [H, W, C], resized without cropping, rotated as its data say.

        Args:
            image: a path, the bytes of a file, an image of Pillow, or an array uint8 [H, W],
                [H, W, C] or [C, H, W].
            where: place of the image, for messages.

        Raises:
            DataError: it cannot be decoded.
        """
        pillow = library("PIL.Image", "an image", "pillow")
        opened = self._opened(image, where, pillow).convert(MODES[self.channels])
        if opened.size != (self.width, self.height):
            opened = opened.resize((self.width, self.height), pillow.Resampling.BICUBIC)
        return np.asarray(opened, np.uint8).reshape(self.height, self.width, self.channels)

    def values(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 values in the range from uint8 [H, W, C]."""
        low, high = self.range
        array = pixels.astype(np.float32) / 255 * (high - low) + low
        return np.ascontiguousarray(array.transpose(2, 0, 1) if self.first else array)

    def _opened(self, image: Any, where: str, pillow: Any) -> Any:
        if isinstance(image, np.ndarray):
            if image.ndim == 3 and image.shape[0] in MODES and image.shape[2] not in MODES:
                image = image.transpose(1, 2, 0)
            squeezed = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
            return pillow.fromarray(np.ascontiguousarray(squeezed))
        if not isinstance(image, bytes | Path | str):
            return image
        oriented = library("PIL.ImageOps", "an image", "pillow").exif_transpose
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                opened = pillow.open(io.BytesIO(image) if isinstance(image, bytes) else image)
                if opened.width * opened.height > _PIXELS:
                    raise DataError(f"{where}: an image of {opened.width} x {opened.height} pixels")
                opened.load()
                return oriented(opened)
        except DataError:
            raise
        except Exception as error:  # decoders of many formats
            raise DataError(
                f"{where}: cannot be decoded as an image: {error}", ["leave it out of the data"]
            ) from error
