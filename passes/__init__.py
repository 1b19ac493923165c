"""Passes: graph in, new graph out."""

from __future__ import annotations

if not __name__.startswith("graphprog."):
    raise ImportError(
        f"the folder {__name__}/ is imported as graphprog.{__name__}: under the bare name every "
        f"class in it would exist twice. Try: import graphprog.{__name__}"
    )

import importlib
from typing import TYPE_CHECKING, Any

from graphprog.spec import register_lazily

if TYPE_CHECKING:
    from graphprog.passes.align import Align as Align
    from graphprog.passes.base import Pass as Pass
    from graphprog.passes.bind_inputs import BindInputs as BindInputs
    from graphprog.passes.cache_memory import CacheMemory as CacheMemory
    from graphprog.passes.cache_memory import ExposeMemory as ExposeMemory
    from graphprog.passes.channels_last import ChannelsLast as ChannelsLast
    from graphprog.passes.erase import EraseProgram as EraseProgram
    from graphprog.passes.extend_axis import ExtendAxis as ExtendAxis
    from graphprog.passes.extend_memory import ExtendMemory as ExtendMemory
    from graphprog.passes.fold_batch_norm import FoldBatchNorm as FoldBatchNorm
    from graphprog.passes.fold_padding import FoldPadding as FoldPadding
    from graphprog.passes.functionalise import Functionalise as Functionalise
    from graphprog.passes.insert import Insert as Insert
    from graphprog.passes.insert import ReplaceInput as ReplaceInput
    from graphprog.passes.match_attention import MatchAttention as MatchAttention
    from graphprog.passes.normalise import DropAsserts as DropAsserts
    from graphprog.passes.normalise import DropCopies as DropCopies
    from graphprog.passes.normalise import DropDeadCode as DropDeadCode
    from graphprog.passes.normalise import DropDropout as DropDropout
    from graphprog.passes.normalise import ResolveTaps as ResolveTaps
    from graphprog.passes.pipeline import Pipeline as Pipeline
    from graphprog.passes.regions import InlineRegions as InlineRegions
    from graphprog.passes.replace_tokens import ReplaceTokens as ReplaceTokens
    from graphprog.passes.split_memory import SplitMemory as SplitMemory

_PASSES = {
    "align": "graphprog.passes.align:Align",
    "bind-inputs": "graphprog.passes.bind_inputs:BindInputs",
    "cache-memory": "graphprog.passes.cache_memory:CacheMemory",
    "channels-last": "graphprog.passes.channels_last:ChannelsLast",
    "drop-asserts": "graphprog.passes.normalise:DropAsserts",
    "drop-copies": "graphprog.passes.normalise:DropCopies",
    "drop-dead-code": "graphprog.passes.normalise:DropDeadCode",
    "drop-dropout": "graphprog.passes.normalise:DropDropout",
    "erase-program": "graphprog.passes.erase:EraseProgram",
    "expose-memory": "graphprog.passes.cache_memory:ExposeMemory",
    "extend-axis": "graphprog.passes.extend_axis:ExtendAxis",
    "extend-memory": "graphprog.passes.extend_memory:ExtendMemory",
    "fold-batch-norm": "graphprog.passes.fold_batch_norm:FoldBatchNorm",
    "fold-padding": "graphprog.passes.fold_padding:FoldPadding",
    "functionalise": "graphprog.passes.functionalise:Functionalise",
    "inline-regions": "graphprog.passes.regions:InlineRegions",
    "insert": "graphprog.passes.insert:Insert",
    "match-attention": "graphprog.passes.match_attention:MatchAttention",
    "pipeline": "graphprog.passes.pipeline:Pipeline",
    "replace-input": "graphprog.passes.insert:ReplaceInput",
    "replace-tokens": "graphprog.passes.replace_tokens:ReplaceTokens",
    "resolve-taps": "graphprog.passes.normalise:ResolveTaps",
    "split-memory": "graphprog.passes.split_memory:SplitMemory",
}
_CLASSES = {place.partition(":")[2]: place for place in _PASSES.values()}
_CLASSES["Pass"] = "graphprog.passes.base:Pass"

for _kind, _place in _PASSES.items():
    register_lazily(_kind, _place)


def __getattr__(name: str) -> Any:
    """Import a pass when it is first asked for."""
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _CLASSES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


__all__ = sorted(_CLASSES)
