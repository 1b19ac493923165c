"""What each value of a graph depends on: weights, program, samples, other rows of the batch."""

from __future__ import annotations
