"""Graph files: a captured graph with its weights as data, without the model's code.

Here belong writing, reading and what makes reading safe: operations from a list, arguments as typed
JSON, sizes as trees of a few operations. Files of programs belong in :mod:`graphprog.io`.
"""

from __future__ import annotations
