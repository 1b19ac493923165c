"""Label mappings: source classes to target classes, fixed, random or counted from data.

Counting and matching are here; when to count belongs to the training loop.
"""

from __future__ import annotations
