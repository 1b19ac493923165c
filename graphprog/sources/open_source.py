"""Loading of a model by its name."""

from __future__ import annotations

from graphprog.errors import CaptureError, GraphprogError
from graphprog.sources.factory import load_factory, load_weights
from graphprog.sources.library import root_of
from graphprog.sources.model_name import ModelName, parse_name
from graphprog.sources.schemes import loader_of
from graphprog.sources.source import Source


def open_source(name: str) -> Source:
    """Load a model by its name, without capturing it; ``gp.capture(name)`` does both.

    The model comes with example arguments, the axes that vary, and what its library knows of it.

    Args:
        name: ``timm:name`` or ``timm:folder``, ``torchvision:name``, ``hf:owner/name`` or
            ``hf:folder``, ``peft:folder``, ``gguf:path``, ``package.module:factory``, or
            ``weights.safetensors#package.module:factory``.

    Raises:
        CaptureError: no loader knows the name, its library is not installed, or the library cannot
            load the model; the message says why.

    Example:
        >>> source = gp.sources.open_source("torch.nn:Identity")
        >>> source.model
        Identity()
    """
    parsed = parse_name(name)
    loader = loader_of(parsed)
    try:
        found = loader(parsed)
    except GraphprogError:
        raise
    except Exception as error:  # whatever the library raises
        if loader in (load_factory, load_weights):  # an error in the user's own function
            raise
        raise _failed(parsed, error) from error
    if not isinstance(found, Source):
        raise CaptureError(
            f"the loader of {parsed.scheme}: returned a {type(found).__name__}, not a Source"
        )
    return found


def _failed(name: ModelName, error: Exception) -> CaptureError:
    """Return an error for whatever a library raised."""
    what = f"{name.text}: {name.scheme} cannot load it"
    if isinstance(error, ImportError):
        return CaptureError(f"{what}: {root_of(error)}")
    said = str(error).strip() or type(error).__name__
    away = ["save the model where there is a network, and name its folder or file instead"]
    return CaptureError(f"{what}: {said:.600}", away if isinstance(error, OSError) else ())
