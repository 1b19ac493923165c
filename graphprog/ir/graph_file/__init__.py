"""Graph files: a captured graph with its weights as data, without the model's code.

What is written and read stands here, and what keeps it harmless: operations from a list, arguments
as typed JSON, sizes as trees of a few operations. Programs have files of their own, in
:mod:`graphprog.io`.
"""

from __future__ import annotations
