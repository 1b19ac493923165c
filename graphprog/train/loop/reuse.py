"""Splits of a run whose samples are replaced by values that were kept of them."""

from __future__ import annotations

from pathlib import Path

from graphprog.train.data.splits import Split
from graphprog.train.loop.epoch import Trainer
from graphprog.train.reuse.first_pass import FirstPass
from graphprog.train.reuse.kept_split import KeptSplit
from graphprog.train.reuse.stages import Stages


def kept_splits(
    trainer: Trainer, validation: Split | None, folder: Path
) -> tuple[Split, Split | None, str]:
    """Run the source once on every sample, as far as training leaves its values as they are.

    Args:
        trainer: its engine runs the rest from then on.
        validation: held-out data, if there is any.
        folder: where files of kept values go.

    Returns:
        Training and validation data, and why nothing is kept of one of them, where that is news.
    """
    engine, recipe, split = trainer.engine, trainer.recipe, trainer.split
    quiet = recipe.reuse == "auto"
    if recipe.reuse == "off":
        return split, validation, ""
    if type(trainer) is not Trainer:
        return split, validation, "" if quiet else f"nothing is kept by {recipe.engine!r}"
    stages = Stages.of(engine.task.graph)
    if isinstance(stages, str):
        return split, validation, "" if quiet else f"nothing is kept of the samples: {stages}"
    engine.stages = stages
    engine.alone.eval()
    first = FirstPass(engine, recipe.reuse, recipe.batch_size, folder, trainer.bar.keep)
    kept = first.keep(split, "training")
    if isinstance(kept, str):
        return split, validation, kept
    held_out = None if validation is None else first.keep(validation, "validation")
    if isinstance(held_out, str):
        return kept, validation, held_out
    return kept, held_out, ""


def fresh(split: Split) -> Split:
    """Return a split, or the samples themselves if they changed after values were kept of them."""
    return split.base if isinstance(split, KeptSplit) and not split.holds else split
