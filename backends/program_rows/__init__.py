"""One program per row of a batch."""

from __future__ import annotations
