"""Servers of this machine, for tests."""

from __future__ import annotations
