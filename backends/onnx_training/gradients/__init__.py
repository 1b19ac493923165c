"""Gradients of operations, as operations of inference."""

from __future__ import annotations
