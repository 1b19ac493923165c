"""Text generation: greedy, sampled and beam search, with a KV cache derived from the graph.

Here belong the decode loop, sampling of the next token, streaming and batching of prompts. The
passes that derive the cache are in :mod:`graphprog.passes.kv`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprog.utils.lazy import import_when_used

if TYPE_CHECKING:
    from graphprog.generation.kv_decoder import CachedDecoder as CachedDecoder
    from graphprog.generation.kv_decoder import UncachedDecoder as UncachedDecoder
    from graphprog.generation.output import GeneratedText as GeneratedText
    from graphprog.generation.output import GeneratedToken as GeneratedToken
    from graphprog.generation.self_consistency import as_callable as as_callable
    from graphprog.generation.self_consistency import self_consistent as self_consistent

import_when_used(__name__)
