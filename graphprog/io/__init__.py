"""Files of programs, and hubs."""

from __future__ import annotations
