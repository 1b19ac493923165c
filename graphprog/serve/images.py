"""Images of requests as arrays."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from graphprog.compiler.program import Contract
from graphprog.ir.inputs import InputSpec
from graphprog.serve.limits import RequestError

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")


def images_of(texts: Sequence[str], spec: InputSpec, contract: Contract, pixels: int) -> np.ndarray:
    """Decode images for an input of a model.

    An image is rotated as its metadata say, resized to the size of the input without cropping, and
    scaled to the range of the contract.

    Args:
        texts: the files in base64, also as ``data:`` URLs.
        spec: the input [B, C, H, W] or [B, H, W, C].
        contract: of the program.
        pixels: of the largest image that is decoded, and of all images at the model's size.

    Returns:
        Array of that shape, float32.

    Raises:
        RequestError: the input takes no images, or a text is not a PNG, JPEG, WebP, BMP, GIF
            or TIFF (400); it is too large, or all are (413).
    """
    first = _channels_first(spec)
    channels = spec.shape[1 if first else 3]
    if contract.range is None:
        raise RequestError(
            400,
            "the program does not say in which range the model takes images",
            ["send arrays", 'train programs with Contract(space="unit", mean=..., std=...)'],
        )
    low, high = contract.range
    sizes = spec.shape[2:] if first else spec.shape[1:3]
    arrays, held = list[np.ndarray](), 0
    for number, text in enumerate(texts):
        image = _opened(text, number, pixels).convert(_MODES[int(channels)])
        width, height = (
            size if isinstance(size, int) else own
            for size, own in zip(reversed(sizes), image.size, strict=True)
        )
        if (held := held + width * height) > pixels:
            raise RequestError(413, f"the images have more than {pixels} pixels together")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        array = np.asarray(image, np.float32).reshape(height, width, -1) / 255
        arrays.append((array.transpose(2, 0, 1) if first else array) * (high - low) + low)
    if len({array.shape for array in arrays}) > 1:
        raise RequestError(400, "the images have different sizes", ["send one at a time"])
    return np.stack(arrays)


def _channels_first(spec: InputSpec) -> bool:
    if len(spec.shape) == 4 and spec.dtype.is_floating_point:
        if spec.shape[1] in _MODES:
            return True
        if spec.shape[3] in _MODES:
            return False
    raise RequestError(400, f"the model takes {spec}, not images", ["send arrays"])


def _opened(text: str, number: int, pixels: int) -> Image.Image:
    """Return an image, decoded and rotated."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, f"image {number} is not base64: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
            if image.width * image.height > pixels:
                raise RequestError(413, f"image {number} has {image.width} x {image.height} pixels")
            image.load()
            return ImageOps.exif_transpose(image)
    except RequestError:
        raise
    except Exception as error:  # decoders of many formats
        raise RequestError(400, f"image {number} cannot be decoded: {error}") from error
