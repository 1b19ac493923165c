"""Alignments: how outputs or features of the source model become logits of the target task.

This package holds ω of the formula: identity, rules, counted label mappings, linear heads. The pass
that puts an alignment into a graph is :mod:`graphprog.passes.insert.align`; parsing generated text
belongs in :mod:`graphprog.text.parsing`.
"""

from __future__ import annotations

from graphprog.alignments.base import Alignment
from graphprog.alignments.identity import Identity
from graphprog.alignments.label_mapping.bayesian import BayesianMap, WeightedSources
from graphprog.alignments.label_mapping.counting import hard_counts, soft_counts
from graphprog.alignments.label_mapping.fixed_map import FixedMap
from graphprog.alignments.label_mapping.frequency import FrequencyMap, IterativeMap, MatchedSources
from graphprog.alignments.label_mapping.matching import Matching, frequency_matching
from graphprog.alignments.label_mapping.random_map import RandomMap
from graphprog.alignments.label_mapping.report import MappingReport
from graphprog.alignments.label_mapping.selection import SelectedSources, select_sources
from graphprog.alignments.label_mapping.statistical import StatisticalAlignment, StatisticalModule
from graphprog.alignments.label_mapping.weighting import bayesian_weights
from graphprog.alignments.last_token import LastToken
from graphprog.alignments.linear import LinearHead, PooledLinear
from graphprog.alignments.slice import Slice
from graphprog.alignments.verbalizers.label_tokens import LabelTokens
from graphprog.alignments.verbalizers.score import Score
from graphprog.alignments.verbalizers.verbalizer import Verbalizer

__all__ = [
    "Alignment",
    "BayesianMap",
    "FixedMap",
    "FrequencyMap",
    "Identity",
    "IterativeMap",
    "LabelTokens",
    "LastToken",
    "LinearHead",
    "MappingReport",
    "MatchedSources",
    "Matching",
    "PooledLinear",
    "RandomMap",
    "Score",
    "SelectedSources",
    "Slice",
    "StatisticalAlignment",
    "StatisticalModule",
    "Verbalizer",
    "WeightedSources",
    "bayesian_weights",
    "frequency_matching",
    "hard_counts",
    "select_sources",
    "soft_counts",
]
