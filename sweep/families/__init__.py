"""Families of model libraries."""

from __future__ import annotations
