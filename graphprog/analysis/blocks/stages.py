"""Stages of a hierarchy: runs of blocks, between which the shape of activations changes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Hashable

from graphprog.analysis.blocks.repeated_blocks import Block, Chain


def stages_of(chain: Chain, shape: Callable[[Block], Hashable]) -> list[Chain]:
    """Split the blocks of a stream into stages; none if all blocks return one shape.

    Stages are the lists that hold the blocks, ``stages.2`` of ``stages.2.blocks.0``. If one list
    holds all blocks, a stage ends where the shape changes.

    Args:
        chain: the blocks of a stream.
        shape: returns the shape of a block's output without the batch.
    """
    if len({shape(block) for block in chain}) < 2:
        return []
    by_list = _runs(chain, _list_of)
    return by_list if len(by_list) > 1 else _runs(chain, shape)


def _runs(chain: Chain, key: Callable[[Block], Hashable]) -> list[Chain]:
    return [tuple(run) for _, run in itertools.groupby(chain, key)]


def _list_of(block: Block) -> str:
    parts = block.path.split("@")[0].split(".")
    numbered = [position for position, part in enumerate(parts) if re.search(r"\d", part)]
    return ".".join(parts[: numbered[0] + 1] if len(numbered) > 1 else parts[:-1])
