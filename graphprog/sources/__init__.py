"""Models by name: ``timm:resnet18``, ``hf:owner/name``, ``package.module:factory`` and others.

A loader returns a :class:`Source`: a model, the arguments of one call, the axes that vary, and what
else its library knows of it. ``gp.capture`` takes names through this package; other packages add
schemes by the entry point group ``graphprog.sources``. The libraries are imported when a name needs
them. Files of programs belong in :mod:`graphprog.io`.
"""

from __future__ import annotations

from graphprog.sources.open_source import open_source
from graphprog.sources.source import Source

__all__ = ["Source", "open_source"]
