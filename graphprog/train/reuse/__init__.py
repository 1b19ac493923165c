"""Values that training leaves as they are, computed once for each sample and kept.

What depends on what is found in ``graphprog.ir.dependence``; the epochs are in ``train.loop``.
"""

from __future__ import annotations
