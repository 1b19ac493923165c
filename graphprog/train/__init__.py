"""Training of programs; the source model does not change.

Here belong the recipe, objectives, losses, optimizers, history and evaluation. Batches and splits
are in ``data``, epochs and steps in ``loop``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprog.utils.lazy import import_when_used

if TYPE_CHECKING:
    from graphprog.train.fit_many import fit_many as fit_many
    from graphprog.train.history import EpochRecord as EpochRecord
    from graphprog.train.history import History as History
    from graphprog.train.loop.evaluate import Evaluation as Evaluation
    from graphprog.train.loop.evaluate import evaluate as evaluate
    from graphprog.train.loop.fit import fit as fit
    from graphprog.train.optimizers import SGD as SGD
    from graphprog.train.optimizers import Adam as Adam
    from graphprog.train.optimizers import AdamW as AdamW

import_when_used(__name__)
