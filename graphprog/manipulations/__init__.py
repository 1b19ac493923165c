"""Manipulations: what a program does to a value at an interface."""

from __future__ import annotations
