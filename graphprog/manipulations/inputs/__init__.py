"""Manipulations that make the source model's input from another one."""

from __future__ import annotations
