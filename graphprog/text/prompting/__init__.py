"""What text a program puts around a query."""

from __future__ import annotations
