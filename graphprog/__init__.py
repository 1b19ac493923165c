"""Reprogram frozen PyTorch models: capture a graph, rewrite it with a small program, train that."""

from __future__ import annotations

from pathlib import Path as _Path

_root = _Path(__file__).resolve().parent.parent
if (_root / "passes" / "__init__.py").is_file() and not (_root / "graphprog" / "passes").exists():
    __path__.append(str(_root))  # source checkout: graphprog.passes lives in ./passes

__version__ = "0.1.0"
