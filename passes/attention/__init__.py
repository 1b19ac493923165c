"""Passes that fuse attention written out by hand into one operation.

``match_attention`` is the pass; the other files recognize scores, masks and heads.
"""

from __future__ import annotations
