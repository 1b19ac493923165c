"""Values inside a program: learnable, fixed, computed, and how they start."""

from __future__ import annotations
