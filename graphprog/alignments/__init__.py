"""Alignments: how outputs or features of the source model become logits of the target task.

This package holds ω of the formula: identity, rules, counted label mappings, linear heads. The pass
that puts an alignment into a graph is :mod:`graphprog.passes.insert.align`; parsing generated text
belongs in :mod:`graphprog.text.parsing`.
"""

from __future__ import annotations

from graphprog.alignments.base import Alignment as Alignment
from graphprog.alignments.identity import Identity as Identity
from graphprog.alignments.label_mapping.bayesian import BayesianMap as BayesianMap
from graphprog.alignments.label_mapping.bayesian import WeightedSources as WeightedSources
from graphprog.alignments.label_mapping.counting import hard_counts as hard_counts
from graphprog.alignments.label_mapping.counting import soft_counts as soft_counts
from graphprog.alignments.label_mapping.fixed_map import FixedMap as FixedMap
from graphprog.alignments.label_mapping.frequency import FrequencyMap as FrequencyMap
from graphprog.alignments.label_mapping.frequency import IterativeMap as IterativeMap
from graphprog.alignments.label_mapping.frequency import MatchedSources as MatchedSources
from graphprog.alignments.label_mapping.matching import Matching as Matching
from graphprog.alignments.label_mapping.matching import frequency_matching as frequency_matching
from graphprog.alignments.label_mapping.random_map import RandomMap as RandomMap
from graphprog.alignments.label_mapping.report import MappingReport as MappingReport
from graphprog.alignments.label_mapping.selection import SelectedSources as SelectedSources
from graphprog.alignments.label_mapping.selection import select_sources as select_sources
from graphprog.alignments.label_mapping.statistical import (
    StatisticalAlignment as StatisticalAlignment,
)
from graphprog.alignments.label_mapping.statistical import StatisticalModule as StatisticalModule
from graphprog.alignments.label_mapping.weighting import bayesian_weights as bayesian_weights
from graphprog.alignments.last_token import LastToken as LastToken
from graphprog.alignments.linear import LinearHead as LinearHead
from graphprog.alignments.linear import PooledLinear as PooledLinear
from graphprog.alignments.slice import Slice as Slice
from graphprog.alignments.verbalizers.label_tokens import LabelTokens as LabelTokens
from graphprog.alignments.verbalizers.score import Score as Score
from graphprog.alignments.verbalizers.verbalizer import Verbalizer as Verbalizer
