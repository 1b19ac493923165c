"""From a graph and a program to a model whose only trainable parameters are the program's.

Here belong the program as a whole, its lowering to passes, and the compiled model with its checks
of inputs and its texts. Single rewrites are passes; files are in :mod:`graphprog.io`; training is
in :mod:`graphprog.train`.
"""

from __future__ import annotations
