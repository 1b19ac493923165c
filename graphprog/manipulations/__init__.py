"""Manipulations: operations of a program on the values of a graph.

This package holds τ and ℓ of the formula, as data that build a module for a value. Rewriting graphs
for them belongs in :mod:`graphprog.passes`; published methods are compositions of manipulations, in
:mod:`graphprog.methods`.
"""

from __future__ import annotations

from graphprog.manipulations.base import Manipulation as Manipulation
from graphprog.manipulations.inputs.constant_inputs import ConstantInputs as ConstantInputs
from graphprog.manipulations.inputs.image_grid import ImageGrid as ImageGrid
from graphprog.manipulations.inputs.normalize import Normalize as Normalize
from graphprog.manipulations.inputs.prototypes import PatchTokens as PatchTokens
from graphprog.manipulations.inputs.prototypes import Prototypes as Prototypes
from graphprog.manipulations.inputs.resize_pad import ResizePad as ResizePad
from graphprog.manipulations.inputs.token_source import TokenSource as TokenSource
from graphprog.manipulations.inputs.vocabulary_map import VocabularyMap as VocabularyMap
from graphprog.manipulations.interventions.ablation import Ablation as Ablation
from graphprog.manipulations.interventions.conditional_steering import (
    ConditionalSteering as ConditionalSteering,
)
from graphprog.manipulations.interventions.subspace import Subspace as Subspace
from graphprog.manipulations.interventions.swap import Swap as Swap
from graphprog.manipulations.modules.adapter import Adapter as Adapter
from graphprog.manipulations.modules.additive import Additive as Additive
from graphprog.manipulations.modules.conditional import Conditional as Conditional
from graphprog.manipulations.modules.generated import Generated as Generated
from graphprog.manipulations.modules.layer_update import LowRankUpdate as LowRankUpdate
from graphprog.manipulations.modules.layer_update import TokenUpdate as TokenUpdate
from graphprog.manipulations.modules.layer_update import VectorUpdate as VectorUpdate
from graphprog.manipulations.modules.layer_update import WeightUpdate as WeightUpdate
from graphprog.manipulations.modules.mixture import Mixture as Mixture
from graphprog.manipulations.modules.parametric import Parametric as Parametric
from graphprog.manipulations.modules.projection import Projection as Projection
from graphprog.manipulations.modules.sample_mask import SampleMask as SampleMask
from graphprog.manipulations.modules.scale import Scale as Scale
from graphprog.manipulations.modules.trainable_layer import TrainableLayer as TrainableLayer
from graphprog.manipulations.prompts.adaption_prompt import AdaptionPrompt as AdaptionPrompt
from graphprog.manipulations.prompts.concatenative import Concatenative as Concatenative
from graphprog.manipulations.prompts.prefix import Prefix as Prefix
from graphprog.manipulations.prompts.replacement import Replacement as Replacement
from graphprog.manipulations.selective import SelectiveManipulation as SelectiveManipulation
from graphprog.values.context import BuildContext as BuildContext
