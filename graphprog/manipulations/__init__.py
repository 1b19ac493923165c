"""Manipulations: what a program does to the values of a graph."""

from __future__ import annotations

from graphprog.manipulations.adapter import Adapter
from graphprog.manipulations.adaption import Adaption
from graphprog.manipulations.additive import Additive
from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.bound import Bound
from graphprog.manipulations.canvas import Canvas
from graphprog.manipulations.concatenative import Concatenative
from graphprog.manipulations.conditional import Conditional
from graphprog.manipulations.dictionary import Dictionary
from graphprog.manipulations.generated import Generated
from graphprog.manipulations.memory import Memory
from graphprog.manipulations.mixture import Mixture
from graphprog.manipulations.normalise import Normalise
from graphprog.manipulations.parametric import Parametric
from graphprog.manipulations.place import Place
from graphprog.manipulations.projection import Projection
from graphprog.manipulations.prototypes import PatchTokens, Prototypes
from graphprog.manipulations.replacement import Replacement
from graphprog.manipulations.retrained import Retrained
from graphprog.manipulations.sample_mask import SampleMask
from graphprog.manipulations.scale import Scale
from graphprog.manipulations.token_source import TokenSource

__all__ = [
    "Adapter",
    "Adaption",
    "Additive",
    "Bound",
    "Canvas",
    "Concatenative",
    "Conditional",
    "Dictionary",
    "Generated",
    "Manipulation",
    "Memory",
    "Mixture",
    "Normalise",
    "Parametric",
    "PatchTokens",
    "Place",
    "Projection",
    "Prototypes",
    "Replacement",
    "Retrained",
    "SampleMask",
    "Scale",
    "TokenSource",
]
