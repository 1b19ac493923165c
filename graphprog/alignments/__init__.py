"""Alignments: how outputs or features of the source model become logits of the target task."""

from __future__ import annotations

from graphprog.alignments.base import Alignment
from graphprog.alignments.bayesian import BayesianMap, WeightedSources
from graphprog.alignments.counting import hard_counts, soft_counts
from graphprog.alignments.fixed_map import FixedMap
from graphprog.alignments.frequency import FrequencyMap, IterativeMap, MatchedSources
from graphprog.alignments.identity import Identity
from graphprog.alignments.label_tokens import LabelTokens
from graphprog.alignments.last_token import LastToken
from graphprog.alignments.linear import LinearHead, PooledLinear
from graphprog.alignments.matching import Matching, frequency_matching
from graphprog.alignments.random_map import RandomMap
from graphprog.alignments.report import MappingReport
from graphprog.alignments.score import Score
from graphprog.alignments.selection import SelectedSources, select_sources
from graphprog.alignments.slice import Slice
from graphprog.alignments.statistical import StatisticalAlignment, StatisticalModule
from graphprog.alignments.verbalizer import Verbalizer
from graphprog.alignments.weighting import bayesian_weights

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
