"""Values that depend on the program and not on samples, computed once for all rows of a batch.

Here belong the proof that entries of a value are the same in every row, the proof that a mask hides
samples from a prompt, the split of values into a prompt's part and the rest, and the pass.
"""

from __future__ import annotations
