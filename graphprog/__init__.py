"""Reprogram frozen PyTorch models: capture a graph, rewrite it with a small program, train that."""

from __future__ import annotations

from pathlib import Path as _Path

_root = _Path(__file__).resolve().parent.parent
if (_root / "passes" / "__init__.py").is_file() and not (_root / "graphprog" / "passes").exists():
    __path__.append(str(_root))  # source checkout: graphprog.passes lives in ./passes

# the path above comes first
from graphprog import (
    backends,
    conditioning,
    errors,
    inits,
    losses,
    masks,
    methods,
    passes,
    patches,
    peft,
    reparametrised,
    text,
)
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
from graphprog.cached import Cached, Uncached, cached
from graphprog.capture import capture
from graphprog.compile import compile
from graphprog.fold_memory import fold
from graphprog.generation.asking import asking, self_consistent
from graphprog.generation.generate import generate
from graphprog.generation.written import Token, Written
from graphprog.graph import Graph
from graphprog.hub import pull, push
from graphprog.interface import Interface
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
from graphprog.optimise import optimise
from graphprog.program import Contract, Program
from graphprog.remembered import Remembered
from graphprog.reprogrammed import Reprogrammed
from graphprog.saving import load
from graphprog.soften import soften
from graphprog.text import Demonstrations, Instruction, Parse, Template
from graphprog.train import SGD, Adam, AdamW, Evaluation, History, evaluate, fit
from graphprog.values import Fixed, Learnable

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
