"""Reprogram frozen PyTorch models: capture a graph, rewrite it with a small program, train that."""

from __future__ import annotations

from pathlib import Path as _Path

_root = _Path(__file__).resolve().parent.parent
if (_root / "passes" / "__init__.py").is_file() and not (_root / "graphprog" / "passes").exists():
    __path__.append(str(_root))  # source checkout: graphprog.passes lives in ./passes

# the path above comes first
from graphprog import backends, errors, methods, passes, peft, text
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
from graphprog.compiler.model import Reprogrammed
from graphprog.compiler.precompute import fold
from graphprog.compiler.program import Contract, Program
from graphprog.compiler.soft_prompt import soften
from graphprog.generation.generate import generate
from graphprog.generation.kv_decoder import Cached, Uncached, cached
from graphprog.generation.output import Token, Written
from graphprog.generation.self_consistency import asking, self_consistent
from graphprog.io.hub import pull, push
from graphprog.io.saving import load
from graphprog.ir.graph import Graph
from graphprog.ir.interface import Interface
from graphprog.manipulations import (
    Adapter,
    Adaption,
    Additive,
    Bound,
    Canvas,
    Concatenative,
    Conditional,
    Dictionary,
    Generated,
    Manipulation,
    Memory,
    Mixture,
    Parametric,
    PatchTokens,
    Place,
    Projection,
    Prototypes,
    Replacement,
    Retrained,
    SampleMask,
    Scale,
    TokenSource,
)
from graphprog.passes.optimize.optimize import optimise
from graphprog.text import Demonstrations, Instruction, Parse, Template
from graphprog.train import SGD, Adam, AdamW, Evaluation, History, evaluate, fit, losses
from graphprog.values import conditioning, masks, patches
from graphprog.values import initializers as inits
from graphprog.values import reparameterized as reparametrised
from graphprog.values.base import Fixed, Learnable
from graphprog.values.text_prefix import Remembered

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Adapter",
    "Adaption",
    "Additive",
    "Alignment",
    "BayesianMap",
    "Bound",
    "Cached",
    "Canvas",
    "Concatenative",
    "Conditional",
    "Contract",
    "Demonstrations",
    "Dictionary",
    "Evaluation",
    "Fixed",
    "FixedMap",
    "FrequencyMap",
    "Generated",
    "Graph",
    "History",
    "Identity",
    "Instruction",
    "Interface",
    "IterativeMap",
    "LastToken",
    "Learnable",
    "LinearHead",
    "Manipulation",
    "Memory",
    "Mixture",
    "Parametric",
    "Parse",
    "PatchTokens",
    "Place",
    "Program",
    "Projection",
    "Prototypes",
    "RandomMap",
    "Remembered",
    "Replacement",
    "Reprogrammed",
    "Retrained",
    "SampleMask",
    "Scale",
    "Score",
    "Slice",
    "Template",
    "Token",
    "TokenSource",
    "Uncached",
    "Verbalizer",
    "Written",
    "asking",
    "backends",
    "cached",
    "capture",
    "compile",
    "conditioning",
    "errors",
    "evaluate",
    "fit",
    "fold",
    "generate",
    "inits",
    "load",
    "losses",
    "masks",
    "methods",
    "optimise",
    "passes",
    "patches",
    "peft",
    "pull",
    "push",
    "reparametrised",
    "self_consistent",
    "soften",
    "text",
]
