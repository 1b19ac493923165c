"""Files of graphs: a captured graph with its weights as data, without the model's code.

Reads and writes them safely: operations from a list, arguments as typed JSON, sizes as trees of a
few operations. Programs have files of their own, in :mod:`graphprog.io`.
"""

from __future__ import annotations
