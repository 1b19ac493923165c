"""Manipulations: what a program does to the values of a graph."""

from __future__ import annotations

from graphprog.manipulations.additive import Additive
from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.concatenative import Concatenative
from graphprog.manipulations.normalise import Normalise
from graphprog.manipulations.parametric import Parametric
from graphprog.manipulations.place import Place
from graphprog.manipulations.scale import Scale

__all__ = ["Additive", "Concatenative", "Manipulation", "Normalise", "Parametric", "Place", "Scale"]
