"""Manipulations: operations of a program on the values of a graph.

This package holds τ and ℓ of the formula, as data that build a module for a value. Rewriting graphs
for them belongs in :mod:`graphprog.passes`; published methods are compositions of manipulations, in
:mod:`graphprog.methods`.
"""

from __future__ import annotations

from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.inputs.constant_inputs import ConstantInputs
from graphprog.manipulations.inputs.image_grid import ImageGrid
from graphprog.manipulations.inputs.normalize import Normalize
from graphprog.manipulations.inputs.prototypes import PatchTokens, Prototypes
from graphprog.manipulations.inputs.resize_pad import ResizePad
from graphprog.manipulations.inputs.token_source import TokenSource
from graphprog.manipulations.inputs.vocabulary_map import VocabularyMap
from graphprog.manipulations.modules.adapter import Adapter
from graphprog.manipulations.modules.additive import Additive
from graphprog.manipulations.modules.conditional import Conditional
from graphprog.manipulations.modules.generated import Generated
from graphprog.manipulations.modules.mixture import Mixture
from graphprog.manipulations.modules.parametric import Parametric
from graphprog.manipulations.modules.projection import Projection
from graphprog.manipulations.modules.sample_mask import SampleMask
from graphprog.manipulations.modules.scale import Scale
from graphprog.manipulations.modules.trainable_layer import TrainableLayer
from graphprog.manipulations.prompts.adaption_prompt import AdaptionPrompt
from graphprog.manipulations.prompts.concatenative import Concatenative
from graphprog.manipulations.prompts.prefix import Prefix
from graphprog.manipulations.prompts.replacement import Replacement
from graphprog.values.context import BuildContext

__all__ = [
    "Adapter",
    "AdaptionPrompt",
    "Additive",
    "BuildContext",
    "Concatenative",
    "Conditional",
    "ConstantInputs",
    "Generated",
    "ImageGrid",
    "Manipulation",
    "Mixture",
    "Normalize",
    "Parametric",
    "PatchTokens",
    "Prefix",
    "Projection",
    "Prototypes",
    "Replacement",
    "ResizePad",
    "SampleMask",
    "Scale",
    "TokenSource",
    "TrainableLayer",
    "VocabularyMap",
]
