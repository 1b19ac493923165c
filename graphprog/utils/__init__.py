"""Small tools that know nothing of graphs or programs: files, JSON, plots, arrays."""

from __future__ import annotations
