"""Several calls for one answer, and files of other libraries."""

from __future__ import annotations
