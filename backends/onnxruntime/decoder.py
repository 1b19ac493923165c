"""Generation with ONNX Runtime; keys and values stay on the device."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from graphprog.analysis.roles import Roles
from graphprog.backends.onnx_model.metadata import KEY, Deployed, Documented, read_document
from graphprog.backends.onnxruntime.providers import Providers, open_session
from graphprog.backends.onnxruntime.session_options import Options, SessionOptions
from graphprog.compiler.program import Program
from graphprog.errors import BackendError, FileError
from graphprog.generation.decoder import PromptFormat
from graphprog.io.artifact import within
from graphprog.passes.kv.cached_step import results_and_cache
from graphprog.spec.registry import from_json
from graphprog.utils.json import parse_json

ROLES = f"{KEY}.roles"
WORDING = f"{KEY}.wording"
_BROKEN = ["export it again: this file is damaged"]
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}
Cache = Mapping[str, onnxruntime.OrtValue]


def prefill_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of the prefill graph of an encoder-decoder."""
    return Path(path).with_suffix(".prefill.onnx")


class Decoder(Documented):
    """A decoder file of :func:`graphprog.backends.onnx.export_decoder`, for ``gp.generate``.

    Args:
        path: the ONNX file.
        tokenizer: tokenizer of the source model; needed for prompts that are texts.
        providers: as for :class:`graphprog.backends.onnxruntime.Session`.
        options: as for :class:`graphprog.backends.onnxruntime.Session`.

    Raises:
        FileError: a file is missing, damaged, or does not write.
        BackendError: a requested provider is missing or does not start.

    Attributes:
        document: the JSON document of the file.
        roles: roles of its inputs.
        prompt_format: how prompts become tokens, and how answers are parsed.

    Example:
        >>> report = gp.backends.onnx.export_decoder(language, "small.onnx")
        >>> decoder = gp.backends.onnxruntime.Decoder("small.onnx", tokenizer)
        >>> texts = gp.generate(decoder, ["Hi"], max_new_tokens=4)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tokenizer: Any = None,
        providers: Providers = "auto",
        options: Options = None,
    ) -> None:
        self.path = os.fspath(path)
        with within(path):
            if not os.path.isfile(path):
                raise FileError("no such file", ["check the path"])
            self._decode = open_session(path, providers, options)
            metadata = self._decode.get_modelmeta().custom_metadata_map
            self.document: Deployed = read_document(metadata.get(KEY))
            if ROLES not in metadata:
                raise FileError(
                    "it does not write token after token",
                    ["gp.backends.onnx.export_decoder(task, path)", "onnxruntime.Session(path)"],
                )
            self.roles = _roles(metadata[ROLES], self.document)
            words = from_json(parse_json(metadata.get(WORDING, ""), WORDING), {})
            if not isinstance(words, Program):
                raise FileError("it does not hold the words of its program", _BROKEN)
        self.prompt_format = PromptFormat.of(words, tokenizer)
        self._prefill: onnxruntime.InferenceSession | None = None
        if any(entry.name.startswith("cross_") for entry in self._decode.get_inputs()):
            beside = prefill_path(path)
            with within(beside):
                if not beside.is_file():
                    raise FileError("no such file", [f"it belongs beside {self.path}"])
                self._prefill = open_session(beside, providers, _beside(options))
        self.device = "cuda" if "CUDA" in self._decode.get_providers()[0] else "cpu"
        self._empty = _nothing(self._decode)

    def results(
        self, inputs: Mapping[str, torch.Tensor], cache: Cache | None = None
    ) -> tuple[dict[str, torch.Tensor], Cache]:
        """Compute the results of new tokens, as ``CachedDecoder.results``.

        Raises:
            BackendError: ONNX Runtime fails, for instance on more tokens than there are positions.
        """
        first = cache is None and self._prefill is not None
        session = self._prefill if first and self._prefill is not None else self._decode
        kept = cache if cache is not None else self._blank(inputs)
        binding = session.io_binding()
        for entry in session.get_inputs():
            if entry.name in kept:
                binding.bind_ortvalue_input(entry.name, kept[entry.name])
            else:
                binding.bind_cpu_input(entry.name, _array(inputs[entry.name]))
        names = [entry.name for entry in session.get_outputs()]
        for name in names:
            binding.bind_output(name, self.device if _is_cached(name) else "cpu")
        try:
            session.run_with_iobinding(binding)
        except Exception as error:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
            raise BackendError(f"{self.path}: failed on {shapes}: {error}") from error
        found = dict(zip(names, binding.get_outputs(), strict=True))
        results, after = results_and_cache(found, cache)
        return {name: torch.from_numpy(value.numpy()) for name, value in results.items()}, after

    def advance(
        self, inputs: Mapping[str, torch.Tensor], cache: Cache | None = None
    ) -> tuple[torch.Tensor, Cache]:
        """Return logits [B, T, V] of the T tokens that are not in the cache, and the new cache."""
        results, cache = self.results(inputs, cache)
        return results[self.roles.logits], cache

    def select(self, cache: Cache, rows: torch.Tensor) -> Cache:
        """Select rows of a cache, in the given order."""
        if not cache:
            return cache
        batch = next(iter(cache.values())).shape()[0]
        if rows.tolist() == list(range(batch)):
            return cache
        order = rows.cpu().numpy()
        return {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(value.numpy()[order], self.device)
            for name, value in cache.items()
        }

    def _blank(self, inputs: Mapping[str, torch.Tensor]) -> Cache:
        """Return empty keys and values."""
        batch = len(inputs[self.roles.tokens])
        return {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(
                np.zeros((batch, *shape), dtype), self.device
            )
            for name, (shape, dtype) in self._empty.items()
        }


def _beside(options: Options) -> Options:
    """Return options for the prefill file, with its own path for the optimized graph."""
    if not isinstance(options, SessionOptions) or options.optimized is None:
        return options
    return dataclasses.replace(options, optimized=prefill_path(options.optimized))


def _is_cached(name: str) -> bool:
    return name.startswith(("present_", "cross_"))


def _array(value: torch.Tensor) -> np.ndarray:
    return value.detach().cpu().contiguous().numpy()


def _nothing(session: onnxruntime.InferenceSession) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Return shapes without the batch, and dtypes, of empty keys and values."""
    return {
        entry.name: ((entry.shape[1], 0, entry.shape[3]), _TYPES[entry.type])
        for entry in session.get_inputs()
        if entry.name.startswith("past_")
    }


def _roles(text: str, document: Deployed) -> Roles:
    try:
        return Roles(inputs=document.inputs, **json.loads(text))
    except (ValueError, TypeError) as error:
        raise FileError(f"what its inputs are cannot be read: {error}", _BROKEN) from error
