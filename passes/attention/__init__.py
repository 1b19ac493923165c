"""Passes that fuse attention written out by hand into one operation, and write it out again.

``match_attention`` fuses, with files that recognize scores, masks and heads; ``expose_attention``
makes values inside attention interfaces; ``split_kv`` separates a prefix.
"""

from __future__ import annotations
