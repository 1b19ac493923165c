"""Audio files as waveforms, or as what the preprocessing of a model makes of them."""

from __future__ import annotations

import dataclasses
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from graphprog.errors import DataError
from graphprog.sources.library import library
from graphprog.sources.model_name import parse_name


@dataclasses.dataclass(frozen=True)
class AudioForm:
    """What audio files become.

    Attributes:
        rate: samples per second.
        samples: length to which they are cut or padded with zeros; 0 keeps it.
        extractor: the preprocessing of transformers; None leaves mono waveforms in [-1, 1].
        given: the input of the model that it makes.
    """

    rate: int
    samples: int = 0
    extractor: Any = None
    given: str = ""

    def values(self, sound: Any, where: str) -> np.ndarray:
        """Return the input of a model for a file.

        Raises:
            DataError: the file cannot be decoded.
        """
        wave = waveform(sound, self.rate, where)
        if self.samples:
            wave = np.pad(wave[: self.samples], (0, max(0, self.samples - len(wave))))
        if self.extractor is None:
            return wave
        made = self.extractor(wave, sampling_rate=self.rate, return_tensors="np")
        return np.asarray(made[self.given][0], np.float32)


def waveform(sound: Any, rate: int, where: str) -> np.ndarray:
    """Return a file as mono float32 [S] in [-1, 1], at a rate.

    Args:
        sound: a path, or the bytes of a file.
        rate: samples per second.
        where: place of the file, for messages.

    Raises:
        DataError: it cannot be decoded, or is empty.
    """
    soundfile = library("soundfile", "an audio file")
    signal = library("scipy.signal", "an audio file", "scipy")
    try:
        source = io.BytesIO(sound) if isinstance(sound, bytes) else str(Path(sound))
        wave, own = soundfile.read(source, dtype="float32", always_2d=True)
    except Exception as error:  # decoders of many formats
        raise DataError(f"{where}: cannot be decoded as audio: {error}") from error
    if not len(wave):
        raise DataError(f"{where}: holds no sound")
    mono = wave.mean(1)
    if own != rate:
        common = math.gcd(rate, own)
        mono = signal.resample_poly(mono, rate // common, own // common)
    return np.asarray(mono, np.float32)


def extractor_of(model: str) -> Any:
    """Return the preprocessing of an ``hf:`` model; None for other names.

    Raises:
        DataError: there is none.
    """
    name = parse_name(model)
    if name.scheme != "hf":
        return None
    transformers = library("transformers", "an hf: name")
    place = name.options.get("processor") or name.rest
    try:
        return transformers.AutoFeatureExtractor.from_pretrained(
            place, revision=name.options.get("revision") or "main"
        )
    except Exception as error:  # whatever the library raises
        raise DataError(
            f"{model}: its preprocessing of audio cannot be loaded: {error!s:.200}",
            ["save the feature extractor into the folder of the model"],
        ) from error
