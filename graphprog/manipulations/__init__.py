"""Manipulations: what a program does to the values of a graph."""

from __future__ import annotations

from graphprog.manipulations.additive import Additive
from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.normalise import Normalise
from graphprog.manipulations.place import Place

__all__ = ["Additive", "Manipulation", "Normalise", "Place"]
