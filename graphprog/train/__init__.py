"""Training of programs; the source model stays as it was.

Here belong the recipe, objectives, losses, optimizers, history and evaluation. Batches and splits
are in ``data``, epochs and steps in ``loop``.
"""

from __future__ import annotations

from graphprog.train.history import EpochRecord, History
from graphprog.train.loop.evaluate import Evaluation, evaluate
from graphprog.train.loop.fit import fit
from graphprog.train.optimizers import SGD, Adam, AdamW

__all__ = ["SGD", "Adam", "AdamW", "EpochRecord", "Evaluation", "History", "evaluate", "fit"]
