"""Manipulations that insert or replace entries along an axis."""

from __future__ import annotations
