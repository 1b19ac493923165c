"""Data that a configuration or a command names: read, split, and made ready for training.

Here belongs how files, tables, arrays, data sets of libraries and functions of a user become the
inputs of a task. What training does with them is :mod:`graphprog.train.data`.
"""

from __future__ import annotations
