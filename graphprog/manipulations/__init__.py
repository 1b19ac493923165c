"""Manipulations: what a program does to the values of a graph."""

from __future__ import annotations

from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.inputs.constant_inputs import Bound
from graphprog.manipulations.inputs.image_grid import Canvas
from graphprog.manipulations.inputs.normalize import Normalise
from graphprog.manipulations.inputs.prototypes import PatchTokens, Prototypes
from graphprog.manipulations.inputs.resize_pad import Place
from graphprog.manipulations.inputs.token_source import TokenSource
from graphprog.manipulations.inputs.vocabulary_map import Dictionary
from graphprog.manipulations.modules.adapter import Adapter
from graphprog.manipulations.modules.additive import Additive
from graphprog.manipulations.modules.conditional import Conditional
from graphprog.manipulations.modules.generated import Generated
from graphprog.manipulations.modules.mixture import Mixture
from graphprog.manipulations.modules.parametric import Parametric
from graphprog.manipulations.modules.projection import Projection
from graphprog.manipulations.modules.sample_mask import SampleMask
from graphprog.manipulations.modules.scale import Scale
from graphprog.manipulations.modules.trainable_layer import Retrained
from graphprog.manipulations.prompts.adaption_prompt import Adaption
from graphprog.manipulations.prompts.concatenative import Concatenative
from graphprog.manipulations.prompts.prefix import Memory
from graphprog.manipulations.prompts.replacement import Replacement

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
