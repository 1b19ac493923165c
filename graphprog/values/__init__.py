"""Values of a program: learnable, fixed or computed, with initial values, masks and patches.

Initializers, reparameterizations, conditioning, masks and patches. Manipulations say how a value is
used at an interface.
"""

from __future__ import annotations
