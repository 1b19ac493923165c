"""Plots of tensors: figures and their files, programs, attention weights.

Here belongs what draws tensors and texts. Plots of results, such as a training history, are methods
of these results.
"""

from __future__ import annotations
