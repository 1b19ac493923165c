"""What a graph keeps in memory: weights in 8 or 4 bits, and values for the backward pass.

What a single pass decides belongs to that pass; here is what the execution of any graph needs.
"""

from __future__ import annotations
