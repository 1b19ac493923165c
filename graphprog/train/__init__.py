"""Training of programs; the source model stays as it was."""

from __future__ import annotations
