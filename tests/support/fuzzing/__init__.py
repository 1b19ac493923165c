"""Fuzzing of files: cases of every kind, and processes that are watched while they read them."""

from __future__ import annotations
