"""Configurations of runs: a typed schema, read from TOML and checked as a whole.

Here belongs what a configuration says and whether it can be right. What it names, such as data, is
read in :mod:`graphprog.cli.data`; what is done with it is :mod:`graphprog.cli.training`.
"""

from __future__ import annotations
