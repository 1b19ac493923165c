"""What clients say: inference (v2), predictions, completions, programs, health.

Each module has one router. What a request asks for is computed by a
:class:`graphprog.serve.served.Served`.
"""

from __future__ import annotations
