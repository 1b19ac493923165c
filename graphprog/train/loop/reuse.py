"""Splits of a run whose samples are replaced by values that were kept of them."""

from __future__ import annotations

from pathlib import Path

from graphprog.compiler.data_checks import class_count
from graphprog.train.data.splits import Split, TensorSplit
from graphprog.train.loop.epoch import Trainer
from graphprog.train.reuse.first_pass import FirstPass
from graphprog.train.reuse.kept_split import KeptSplit
from graphprog.train.reuse.sharing import Sharing
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
    shared = Sharing.now()
    stages = Stages.of(engine.task.graph)
    if isinstance(stages, str) and shared is not None and not isinstance(split, TensorSplit):
        inputs = Stages.of(engine.task.graph, engine.task.graph.placeholders)  # one reading for all
        stages = stages if isinstance(inputs, str) else inputs
    if isinstance(stages, str):
        return split, validation, "" if quiet else f"nothing is kept of the samples: {stages}"
    engine.stages = stages
    engine.alone.eval()

    def keep(one: Split, name: str) -> KeptSplit | str:
        place = folder if shared is None else shared.new_folder()
        first = FirstPass(engine, recipe.reuse, recipe.batch_size, place, trainer.bar.keep)
        if shared is None:
            return first.keep(one, name)
        checks = (class_count(engine.task.graph), str(recipe.loss))  # samples were checked for them
        key = (stages.key, recipe.precision, recipe.reuse, *checks)
        return shared.kept(one, name, key, lambda: first.keep(one, name))

    kept = keep(split, "training")
    if isinstance(kept, str):
        return split, validation, kept
    held_out = None if validation is None else keep(validation, "validation")
    if isinstance(held_out, str):
        return kept, validation, held_out
    return kept, held_out, ""


def fresh(split: Split) -> Split:
    """Return a split, or the samples themselves if they changed after values were kept of them."""
    return split.base if isinstance(split, KeptSplit) and not split.holds else split
