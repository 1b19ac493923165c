"""Models of transformers, by name on the Hugging Face Hub or by folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphprog.errors import CaptureError, FileError
from graphprog.sources.library import library
from graphprog.sources.model_name import ModelName, nearest
from graphprog.sources.preprocessing import hints_of
from graphprog.sources.source import Source
from graphprog.sources.transformers_inputs import example_call

_OPTIONS = ("class", "tokenizer", "processor", "revision", "dtype", "random")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
_PROCESSOR = ("preprocessor_config.json", "processor_config.json")


def load_transformers(name: ModelName) -> Source:
    """Load ``hf:owner/name`` or ``hf:folder``, with the class that the checkpoint was saved as.

    Options: ``#class=AutoModelForMaskedLM`` or another class of transformers, ``#tokenizer=`` and
    ``#processor=`` for those of another name or folder, ``#revision=``, ``#dtype=float32`` for
    another type of the weights, ``#random`` for untrained weights. Code of the repository is not
    run.

    Raises:
        CaptureError: transformers is not installed, has no such class, or would leave a part of
            the model untrained.
        FileError: there is no such folder.
    """
    name.require_options(_OPTIONS)
    place = name.rest
    if not Path(place).is_dir() and (place.startswith((".", "/", "~")) or place.count("/") > 1):
        raise FileError(f"{place}: no such folder")
    return source_of(name, place, {})


def source_of(name: ModelName, place: str, extra: Mapping[str, Any]) -> Source:
    """Load a model with its tokenizer, its preprocessing, and an example of its inputs.

    Args:
        name: the name with its options.
        place: folder, or name on the Hub.
        extra: further arguments of ``from_pretrained``, such as ``gguf_file``.
    """
    transformers: Any = library("transformers", f"a {name.scheme}: name")
    where = {"revision": name.options["revision"]} if "revision" in name.options else {}
    where = {**where, **extra}
    config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False, **where)
    model = _model(transformers, name, place, config, where).eval()
    words, other = (name.options.get(option, place) for option in ("tokenizer", "processor"))
    processor = _loaded(transformers.AutoProcessor, other, where, _PROCESSOR) if not extra else None
    tokenizer = None
    call, axes = example_call(model, processor)
    if any(one.endswith("input_ids") for one in call):
        own = (*_TOKENIZER, *(extra.get("gguf_file", ""),))
        tokenizer = _loaded(transformers.AutoTokenizer, words, where, own)
    hints = hints_of(processor, model.config)
    if tokenizer is not None:
        hints["tokenizer"] = words
    return Source(model, (), call, axes, hints, tokenizer, processor)


def _model(
    transformers: Any, name: ModelName, place: str, config: Any, where: Mapping[str, Any]
) -> Any:
    """Return the model, of the class that is asked for or else that of the checkpoint."""
    saved = (config.architectures or ["AutoModel"])[0]
    wanted = name.options.get("class", saved)
    made = getattr(transformers, wanted, None)
    if made is None or not hasattr(made, "from_pretrained"):
        known = [one for one in dir(transformers) if "Model" in one or "For" in one]
        raise CaptureError(
            f"{name.text}: transformers {transformers.__version__} has no model {wanted}"
            f"{nearest(wanted, known)}",
            ["pip install --upgrade transformers", "#class=AutoModel, or another class"],
        )
    dtype = {"dtype": name.options["dtype"]} if "dtype" in name.options else {}
    if "random" in name.options:
        of_config = getattr(made, "from_config", None) or made._from_config
        return of_config(config, **dtype)
    model, info = made.from_pretrained(
        place, trust_remote_code=False, output_loading_info=True, **dtype, **where
    )
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise CaptureError(
            f"{name.text}: the checkpoint lacks {len(missing)} weights of {wanted}, such as "
            f"{missing[0]}; they would be random",
            [f"#class={saved}" if saved != wanted else "#class=AutoModel"],
        )
    return model


def _loaded(loader: Any, place: str, where: Mapping[str, Any], files: tuple[str, ...]) -> Any:
    """Load a tokenizer or a processor; None if the place has none."""
    if Path(place).is_dir():
        if not any(file and os.path.exists(os.path.join(place, file)) for file in files):
            return None
        return loader.from_pretrained(place, trust_remote_code=False, **where)
    try:
        return loader.from_pretrained(place, trust_remote_code=False, **where)
    except OSError:  # the repository has no such files
        return None
