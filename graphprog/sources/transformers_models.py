"""Models of transformers, by name on the Hugging Face Hub, by folder, or in GGUF files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from graphprog.errors import CaptureError, FileError
from graphprog.sources.library import library
from graphprog.sources.model_name import ModelName, nearest
from graphprog.sources.preprocessing import hints_of
from graphprog.sources.source import Source
from graphprog.sources.transformers_inputs import example_call

OPTIONS = ("class", "tokenizer", "processor", "revision", "dtype", "random")
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
    name.require_options(OPTIONS)
    place = name.rest
    if not Path(place).is_dir() and (place.startswith((".", "/", "~")) or place.count("/") > 1):
        raise FileError(f"{place}: no such folder")
    return source_of(name, place, {})


def load_gguf(name: ModelName) -> Source:
    """Load ``gguf:path`` or ``path.gguf``; quantized weights become floats.

    Options: ``#class=``, ``#tokenizer=`` and ``#dtype=``, as for ``hf:``.

    Raises:
        CaptureError: transformers or gguf is not installed, or transformers does not read this
            architecture.
        FileError: there is no such file.
    """
    name.require_options(("class", "tokenizer", "dtype"))
    path = Path(name.rest)
    if not path.is_file():
        raise FileError(f"{path}: no such file")
    library("gguf", "a gguf: name")
    return source_of(name, str(path.parent), {"gguf_file": path.name})


def source_of(
    name: ModelName,
    place: str,
    extra: Mapping[str, Any],
    trained: Collection[str] = (),
    change: Callable[[Any], Any] = lambda model: model,
) -> Source:
    """Load a model with its tokenizer, its preprocessing, and an example of its inputs.

    Args:
        name: the name with its options.
        place: folder, or name on the Hub.
        extra: further arguments of ``from_pretrained``, such as ``gguf_file``.
        trained: names of weights that ``change`` sets, which the checkpoint may lack.
        change: function of the loaded model that returns the model.
    """
    transformers: Any = library("transformers", f"a {name.scheme}: name")
    where = {"revision": name.options["revision"]} if "revision" in name.options else {}
    where = {**where, **extra}
    config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False, **where)
    model = change(_model(transformers, name, place, config, where, trained)).eval()
    processor = None
    if not extra:
        processor = _loaded(transformers.AutoProcessor, name, "processor", place, where, _PROCESSOR)
    call, axes = example_call(model, processor)
    hints = hints_of(processor, model.config)
    tokenizer = None
    if any(one.endswith("input_ids") for one in call):
        files = (*_TOKENIZER, extra.get("gguf_file", ""))
        tokenizer = _loaded(transformers.AutoTokenizer, name, "tokenizer", place, where, files)
    if tokenizer is not None and not extra:
        hints["tokenizer"] = name.options.get("tokenizer", place)
    return Source(model, (), call, axes, hints, tokenizer, processor)


def _model(
    transformers: Any,
    name: ModelName,
    place: str,
    config: Any,
    where: Mapping[str, Any],
    trained: Collection[str],
) -> Any:
    """Return the model, of the class that is asked for or else that of the checkpoint."""
    saved = (config.architectures or [_unnamed(where)])[0]
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
    # without it, transformers reads all of a GGUF file once more
    own = {"config": config} if "gguf_file" in where else {}
    model, info = made.from_pretrained(
        place, trust_remote_code=False, output_loading_info=True, **dtype, **own, **where
    )
    if missing := sorted(set(info["missing_keys"]) - set(trained)):
        raise CaptureError(
            f"{name.text}: the checkpoint lacks {len(missing)} weights of {wanted}, such as "
            f"{missing[0]}; they would be random",
            [f"#class={saved}" if saved != wanted else "#class=AutoModel"],
        )
    return model


def _unnamed(where: Mapping[str, Any]) -> str:
    """Return the class of a checkpoint that names none: GGUF files hold language models."""
    return "AutoModelForCausalLM" if "gguf_file" in where else "AutoModel"


def _loaded(
    loader: Any,
    name: ModelName,
    option: str,
    place: str,
    where: Mapping[str, Any],
    files: tuple[str, ...],
) -> Any:
    """Load the tokenizer or processor of an option, or else that of the model, if it has one."""
    if option in name.options:
        return loader.from_pretrained(name.options[option], trust_remote_code=False)
    folder = Path(place)
    if folder.is_dir() and not any(file and (folder / file).exists() for file in files):
        return None
    try:
        return loader.from_pretrained(place, trust_remote_code=False, **where)
    except OSError:
        if folder.is_dir():
            raise
        return None  # the repository has no such files
