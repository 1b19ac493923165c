"""Runs: what ``init``, ``train`` and ``evaluate`` do with a configuration.

A run has a folder: the program, the configuration as it was used, the history, and the checkpoint
from which it resumes.
"""

from __future__ import annotations
