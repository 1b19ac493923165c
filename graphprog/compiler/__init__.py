"""Compilation of a graph and a program into a model that trains only the program.

Here belong programs as a whole, their lowering to passes, and the compiled model with its checks of
inputs and its text. Single rewrites are passes; files belong in :mod:`graphprog.io`, training in
:mod:`graphprog.train`.
"""

from __future__ import annotations
