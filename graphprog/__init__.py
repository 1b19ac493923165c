"""Reprogram frozen PyTorch models: capture a graph, rewrite it with a small program, train that."""

from __future__ import annotations

from pathlib import Path as _Path

_root = _Path(__file__).resolve().parent.parent
if (_root / "passes" / "__init__.py").is_file() and not (_root / "graphprog" / "passes").exists():
    __path__.append(str(_root))  # source checkout: graphprog.passes lives in ./passes

# the path above comes first
from graphprog import backends, errors, generation, methods, passes, peft, text
from graphprog.alignments import (
    Alignment,
    BayesianMap,
    FixedMap,
    FrequencyMap,
    Identity,
    IterativeMap,
    LastToken,
    LinearHead,
    RandomMap,
    Score,
    Slice,
    Verbalizer,
)
from graphprog.capture.capture import capture
from graphprog.compiler.compile import compile
from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.precompute import precompute
from graphprog.compiler.program import Contract, Program
from graphprog.generation.generate import generate
from graphprog.generation.kv_decoder import with_kv_cache
from graphprog.io.hub import pull, push
from graphprog.io.saving import load, save
from graphprog.ir.graph import Graph
from graphprog.ir.interface import Interface
from graphprog.manipulations import (
    Adapter,
    AdaptionPrompt,
    Additive,
    Concatenative,
    Conditional,
    ConstantInputs,
    Generated,
    ImageGrid,
    Manipulation,
    Mixture,
    Parametric,
    PatchTokens,
    Prefix,
    Projection,
    Prototypes,
    Replacement,
    ResizePad,
    SampleMask,
    Scale,
    TokenSource,
    TrainableLayer,
    VocabularyMap,
)
from graphprog.passes.optimize.optimize import optimize
from graphprog.text import Demonstrations, Instruction, Parse, Template
from graphprog.train import SGD, Adam, AdamW, Evaluation, History, evaluate, fit, losses
from graphprog.values import conditioning, entries, initializers, masks, patches, reparameterized
from graphprog.values.base import Fixed, Learnable
from graphprog.values.text_prefix import TextPrefix

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Adapter",
    "AdaptionPrompt",
    "Additive",
    "Alignment",
    "BayesianMap",
    "Concatenative",
    "Conditional",
    "ConstantInputs",
    "Contract",
    "Demonstrations",
    "Evaluation",
    "Fixed",
    "FixedMap",
    "FrequencyMap",
    "Generated",
    "Graph",
    "History",
    "Identity",
    "ImageGrid",
    "Instruction",
    "Interface",
    "IterativeMap",
    "LastToken",
    "Learnable",
    "LinearHead",
    "Manipulation",
    "Mixture",
    "Parametric",
    "Parse",
    "PatchTokens",
    "Prefix",
    "Program",
    "Projection",
    "Prototypes",
    "RandomMap",
    "Replacement",
    "ReprogrammedModel",
    "ResizePad",
    "SampleMask",
    "Scale",
    "Score",
    "Slice",
    "Template",
    "TextPrefix",
    "TokenSource",
    "TrainableLayer",
    "Verbalizer",
    "VocabularyMap",
    "backends",
    "capture",
    "compile",
    "conditioning",
    "entries",
    "errors",
    "evaluate",
    "fit",
    "generate",
    "generation",
    "initializers",
    "load",
    "losses",
    "masks",
    "methods",
    "optimize",
    "passes",
    "patches",
    "peft",
    "precompute",
    "pull",
    "push",
    "reparameterized",
    "save",
    "text",
    "with_kv_cache",
]


def __dir__() -> list[str]:
    """The public names, and nothing else."""
    return [*__all__, "__version__"]
