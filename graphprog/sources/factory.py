"""Models that a function of the user makes, with or without a file of weights."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from graphprog.errors import CaptureError, FileError
from graphprog.sources.model_name import FACTORY, ModelName, nearest
from graphprog.sources.source import Source
from graphprog.utils.files import open_regular


def load_factory(name: ModelName) -> Source:
    """Call ``package.module:factory``, which returns a model, a tuple or a :class:`Source`.

    A tuple has the model, and then the positional arguments of one call, keyword arguments and
    dynamic axes, as far as given.

    Raises:
        CaptureError: there is no such function, or it returns something else.
    """
    name.require_options(())
    return made_by(name.text)


def load_weights(name: ModelName) -> Source:
    """Call a factory, and load a ``.safetensors`` file into its model.

    Raises:
        CaptureError: no factory is named, or the tensors of the file are not those of the model.
        FileError: the file cannot be read.
    """
    factory = name.options.get("factory", "")
    if not FACTORY.fullmatch(factory):
        raise CaptureError(
            f"{name.text}: a file of weights needs the function that makes its model",
            [f"{name.rest}#package.module:factory"],
        )
    if not Path(name.rest).is_file():
        raise FileError(f"{name.rest}: no such file")
    source = made_by(factory)
    try:
        with open_regular(name.rest) as file:
            tensors = safetensors.torch.load(file.read())
    except FileError as error:
        raise FileError(f"{name.rest}: {error.what}", error.remedies) from error
    except Exception as error:
        raise FileError(f"{name.rest}: not a .safetensors file: {error}") from error
    try:
        source.model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CaptureError(
            f"{name.rest} holds weights of another model than {factory} makes:\n{error}"
        ) from error
    return source


def made_by(factory: str) -> Source:
    """Call a function by its name.

    Raises:
        CaptureError: there is no such function, or what it returns is not a model.
    """
    made = attribute_of(factory)()
    if isinstance(made, Source):
        return made
    parts: tuple[Any, ...] = made if isinstance(made, tuple) else (made,)
    if not 1 <= len(parts) <= 4 or not isinstance(parts[0], nn.Module):
        raise CaptureError(
            f"{factory} returned {made!r:.80}",
            ["return a model, or (model, args), (model, args, kwargs, dynamic_axes)"],
        )
    model, args, kwargs, axes = parts + (None,) * (4 - len(parts))
    args = () if args is None else args
    args = tuple(args) if isinstance(args, list | tuple) else (args,)
    return Source(model.eval(), args, kwargs or {}, axes)


def attribute_of(name: str) -> Any:
    """Import ``package.module:attribute``.

    Raises:
        CaptureError: there is no such module or attribute.
    """
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # of an import inside the module
        raise CaptureError(
            f"{name}: there is no module {module}",
            ["start in the folder that holds it, or put that folder on PYTHONPATH"],
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            own = [one for one, value in getattr(found, "__dict__", {}).items() if callable(value)]
            raise CaptureError(f"{name}: {module} has no {part}{nearest(part, own)}")
        found = getattr(found, part)
    return found
