"""Reprogram frozen PyTorch models: capture a graph, rewrite it with a small program, train that."""

from __future__ import annotations

from pathlib import Path as _Path
from typing import TYPE_CHECKING

_root = _Path(__file__).resolve().parent.parent
if (_root / "passes" / "__init__.py").is_file() and not (_root / "graphprog" / "passes").exists():
    __path__.append(str(_root))  # source checkout: graphprog.passes lives in ./passes

# the path above comes first
from graphprog.utils.lazy import import_when_used as _import_when_used
from graphprog.utils.version import __version__ as __version__

if TYPE_CHECKING:
    from graphprog import backends as backends
    from graphprog import errors as errors
    from graphprog import generation as generation
    from graphprog import instruments as instruments
    from graphprog import methods as methods
    from graphprog import passes as passes
    from graphprog import peft as peft
    from graphprog import sources as sources
    from graphprog import text as text
    from graphprog.alignments.base import Alignment as Alignment
    from graphprog.alignments.identity import Identity as Identity
    from graphprog.alignments.label_mapping.bayesian import BayesianMap as BayesianMap
    from graphprog.alignments.label_mapping.fixed_map import FixedMap as FixedMap
    from graphprog.alignments.label_mapping.frequency import FrequencyMap as FrequencyMap
    from graphprog.alignments.label_mapping.frequency import IterativeMap as IterativeMap
    from graphprog.alignments.label_mapping.random_map import RandomMap as RandomMap
    from graphprog.alignments.last_token import LastToken as LastToken
    from graphprog.alignments.linear import LinearHead as LinearHead
    from graphprog.alignments.slice import Slice as Slice
    from graphprog.alignments.verbalizers.score import Score as Score
    from graphprog.alignments.verbalizers.verbalizer import Verbalizer as Verbalizer
    from graphprog.capture.capture import capture as capture
    from graphprog.compiler.compile import compile as compile
    from graphprog.compiler.freeze import freeze as freeze
    from graphprog.compiler.model import ReprogrammedModel as ReprogrammedModel
    from graphprog.compiler.precompute import precompute as precompute
    from graphprog.compiler.program import Contract as Contract
    from graphprog.compiler.program import Program as Program
    from graphprog.generation.generate import generate as generate
    from graphprog.generation.kv_decoder import with_kv_cache as with_kv_cache
    from graphprog.instruments.compare import compare as compare
    from graphprog.instruments.lens import lens as lens
    from graphprog.instruments.patching.attribute import attribute as attribute
    from graphprog.instruments.patching.patch import patch as patch
    from graphprog.instruments.probe import probe as probe
    from graphprog.instruments.record import record as record
    from graphprog.instruments.recording import Recording as Recording
    from graphprog.instruments.steering.contrast import contrast as contrast
    from graphprog.io.hub import pull as pull
    from graphprog.io.hub import push as push
    from graphprog.io.saving import load as load
    from graphprog.io.saving import save as save
    from graphprog.ir.graph import Graph as Graph
    from graphprog.ir.interface import Interface as Interface
    from graphprog.manipulations.base import Manipulation as Manipulation
    from graphprog.manipulations.inputs.constant_inputs import ConstantInputs as ConstantInputs
    from graphprog.manipulations.inputs.image_grid import ImageGrid as ImageGrid
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
    from graphprog.passes.optimize.optimize import optimize as optimize
    from graphprog.sources.reprogram import reprogram as reprogram
    from graphprog.text.parsing.parse import Parse as Parse
    from graphprog.text.prompting.demonstrations import Demonstrations as Demonstrations
    from graphprog.text.prompting.instruction import Instruction as Instruction
    from graphprog.text.prompting.template import Template as Template
    from graphprog.train import losses as losses
    from graphprog.train.fit_many import fit_many as fit_many
    from graphprog.train.history import History as History
    from graphprog.train.loop.evaluate import Evaluation as Evaluation
    from graphprog.train.loop.evaluate import evaluate as evaluate
    from graphprog.train.loop.fit import fit as fit
    from graphprog.train.optimizers import SGD as SGD
    from graphprog.train.optimizers import Adam as Adam
    from graphprog.train.optimizers import AdamW as AdamW
    from graphprog.values import conditioning as conditioning
    from graphprog.values import entries as entries
    from graphprog.values import initializers as initializers
    from graphprog.values import masks as masks
    from graphprog.values import patches as patches
    from graphprog.values import reparameterized as reparameterized
    from graphprog.values.base import Fixed as Fixed
    from graphprog.values.base import Learnable as Learnable
    from graphprog.values.text_prefix import TextPrefix as TextPrefix

_import_when_used(__name__)
