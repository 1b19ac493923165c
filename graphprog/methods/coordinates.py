"""Coordinates of a program's parts in the survey: configuration, location, operator, alignment."""

from __future__ import annotations

import dataclasses

from graphprog.alignments.base import Alignment
from graphprog.alignments.identity import Identity
from graphprog.alignments.label_mapping.statistical import StatisticalAlignment
from graphprog.alignments.linear import LinearHead
from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.inputs.constant_inputs import ConstantInputs
from graphprog.manipulations.inputs.normalize import Normalize
from graphprog.manipulations.inputs.resize_pad import ResizePad
from graphprog.manipulations.inputs.token_source import TokenSource
from graphprog.manipulations.interventions.ablation import Ablation
from graphprog.manipulations.interventions.conditional_steering import ConditionalSteering
from graphprog.manipulations.interventions.swap import Swap
from graphprog.manipulations.modules.additive import Additive
from graphprog.manipulations.modules.generated import Generated
from graphprog.manipulations.modules.layer_update import TokenUpdate, WeightUpdate
from graphprog.manipulations.modules.mixture import Mixture
from graphprog.manipulations.modules.sample_mask import SampleMask
from graphprog.manipulations.prompts.adaption_prompt import AdaptionPrompt
from graphprog.manipulations.prompts.concatenative import Concatenative
from graphprog.manipulations.prompts.prefix import Prefix
from graphprog.manipulations.prompts.replacement import Replacement
from graphprog.values.base import Fixed, Stored
from graphprog.values.text_prefix import TextPrefix

_CHANGED = WeightUpdate | TokenUpdate
_ADDITIVE = Additive | ConditionalSteering | Generated | Mixture | SampleMask | _CHANGED
_CONCATENATIVE = Concatenative | Prefix | AdaptionPrompt | Replacement
_WITHOUT_PARAMETERS = ResizePad | Normalize | ConstantInputs | Swap | Ablation


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Where a part of a program stands in the survey (arXiv 2506.04650).

    Attributes:
        configuration: ``learnable`` or ``fixed``.
        location: ``input``, ``embedding`` or ``hidden``.
        operator: ``additive``, ``concatenative`` or ``parametric``.
    """

    configuration: str
    location: str
    operator: str

    def __str__(self) -> str:
        return f"{self.configuration}, {self.location}, {self.operator}"


def coordinates(part: object) -> Coordinates:
    """Return the coordinates of a manipulation, or of a part that changes the text of queries."""
    if not isinstance(part, Manipulation):
        return Coordinates("fixed", "input", "concatenative")
    return Coordinates(_configuration(part), _location(part), _operator(part))


def alignment(align: Alignment) -> str:
    """Return how outputs are read; the kinds of alignments that follow one another with ``+``."""
    return "+".join(dict.fromkeys(map(_alignment, align.steps)))


def _configuration(part: Manipulation) -> str:
    value = getattr(part, "value", None)
    given = isinstance(value, Fixed | Stored)
    given |= isinstance(value, TextPrefix) and not value.learnable
    return "fixed" if given or isinstance(part, _WITHOUT_PARAMETERS) else "learnable"


def _location(part: Manipulation) -> str:
    name = part.at.rpartition(".")[2]
    if isinstance(part, TokenSource) or name in ("tokens", "embedding"):
        return "embedding"
    return "input" if part.at.partition(":")[0] == "input" else "hidden"


def _operator(part: Manipulation) -> str:
    if isinstance(part, _ADDITIVE):
        return "additive"
    return "concatenative" if isinstance(part, _CONCATENATIVE) else "parametric"


def _alignment(align: Alignment) -> str:
    if isinstance(align, Identity):
        return "identity"
    if isinstance(align, StatisticalAlignment):
        return "statistical"
    return "linear" if isinstance(align, LinearHead) else "structural"
