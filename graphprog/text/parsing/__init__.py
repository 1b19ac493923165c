"""What an answer says."""

from __future__ import annotations
