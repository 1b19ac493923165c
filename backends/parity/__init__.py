"""Results of a backend beside those of PyTorch, and the first interface where they differ.

Every export ends in a report from here.
"""

from __future__ import annotations
