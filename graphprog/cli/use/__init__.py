"""Programs in use: what ``predict``, ``generate``, ``push`` and ``pull`` do with them."""

from __future__ import annotations
