"""Values inside a program: learnable, fixed or computed, how they start, and where they act.

Here belong initializers, reparameterizations, conditioning, masks and patches. What is done with a
value at an interface belongs to a manipulation.
"""

from __future__ import annotations
