"""Passes: each takes a graph and returns a new one.

Here belongs every change of a graph, one pass per file, in the folder of its family: normalize,
insert, extend an axis, attention, keys and values, optimize, selection, once per step. Which passes
a program becomes is decided in :mod:`graphprog.compiler`.
"""

from __future__ import annotations

if not __name__.startswith("graphprog."):
    raise ImportError(
        f"the folder {__name__}/ is imported as graphprog.{__name__}: under the bare name every "
        f"class in it would exist twice. Try: import graphprog.{__name__}"
    )

from typing import TYPE_CHECKING

from graphprog.utils.lazy import import_when_used

if TYPE_CHECKING:
    from graphprog.passes.attention.expose_attention import ExposeAttention as ExposeAttention
    from graphprog.passes.attention.expose_layers import ExposeLayers as ExposeLayers
    from graphprog.passes.attention.match_attention import MatchAttention as MatchAttention
    from graphprog.passes.attention.split_kv import SplitKV as SplitKV
    from graphprog.passes.base import Pass as Pass
    from graphprog.passes.erase import EraseProgram as EraseProgram
    from graphprog.passes.extend_axis.extend_axis import ExtendAxis as ExtendAxis
    from graphprog.passes.insert.align import Align as Align
    from graphprog.passes.insert.bind_inputs import BindInputs as BindInputs
    from graphprog.passes.insert.insert import Insert as Insert
    from graphprog.passes.insert.insert import ReplaceInput as ReplaceInput
    from graphprog.passes.insert.replace_tokens import ReplaceTokens as ReplaceTokens
    from graphprog.passes.kv.extend_kv import ExtendKV as ExtendKV
    from graphprog.passes.kv.kv_cache import CacheKV as CacheKV
    from graphprog.passes.kv.kv_cache import ExposeKV as ExposeKV
    from graphprog.passes.normalize.cleanup import DropAsserts as DropAsserts
    from graphprog.passes.normalize.cleanup import DropCopies as DropCopies
    from graphprog.passes.normalize.cleanup import DropDeadCode as DropDeadCode
    from graphprog.passes.normalize.cleanup import DropDropout as DropDropout
    from graphprog.passes.normalize.cleanup import ResolveTaps as ResolveTaps
    from graphprog.passes.normalize.functionalize import Functionalize as Functionalize
    from graphprog.passes.normalize.regions import InlineRegions as InlineRegions
    from graphprog.passes.once_per_step.once_per_step import OncePerStep as OncePerStep
    from graphprog.passes.optimize.channels_last import ChannelsLast as ChannelsLast
    from graphprog.passes.optimize.fold_additive import FoldAdditive as FoldAdditive
    from graphprog.passes.optimize.fold_batch_norm import FoldBatchNorm as FoldBatchNorm
    from graphprog.passes.optimize.fold_constants import FoldConstants as FoldConstants
    from graphprog.passes.optimize.fold_padding import FoldPadding as FoldPadding
    from graphprog.passes.optimize.freeze_program import FreezeProgram as FreezeProgram
    from graphprog.passes.optimize.fuse_gelu import FuseGelu as FuseGelu
    from graphprog.passes.optimize.merge_linears import MergeLinears as MergeLinears
    from graphprog.passes.optimize.quantize_weights import QuantizeWeights as QuantizeWeights
    from graphprog.passes.pipeline import Pipeline as Pipeline
    from graphprog.passes.selection.only_what_is_read import OnlyWhatIsRead as OnlyWhatIsRead
    from graphprog.rewriting.editor import Editor as Editor

import_when_used(__name__)
