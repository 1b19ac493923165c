"""What a user is told about a run: predictions of one class, a source with few classes."""

from __future__ import annotations

from graphprog.alignments.label_mapping.statistical import StatisticalAlignment
from graphprog.compiler.data_checks import class_count
from graphprog.compiler.model import ReprogrammedModel
from graphprog.ir.fake import fake_tensor
from graphprog.train.loop.meter import Scores

_FEWEST = 10


def collapse_note(scores: Scores, name: str, labels: tuple[str, ...]) -> str:
    """Return a note if all predictions are one class, though the labels are not; else nothing.

    Args:
        scores: scores of a split.
        name: name of the split.
        labels: names of the classes, if known.
    """
    if scores.histogram is None:
        return ""
    found, wanted = (counts.nonzero().flatten().tolist() for counts in scores.histogram)
    count = int(scores.histogram[0].sum())
    if len(found) != 1 or len(wanted) < 2 or count < _FEWEST:
        return ""
    number = found[0]
    called = f"{number} {labels[number]!r}" if number < len(labels) else str(number)
    return (
        f"each of the {count} predictions on the {name} data is class {called}, but the labels "
        f"have {len(wanted)} classes; try class_weight='balanced', monitor='balanced_accuracy' "
        "with that metric, another lr, or more epochs"
    )


def few_classes_note(task: ReprogrammedModel) -> str:
    """Return a note if an alignment reads fewer source classes than the task has classes."""
    align, classes = task.spec.align, class_count(task.graph)
    read = next((item for item in task.graph.insertions if item.kind == "output"), None)
    if read is None or classes is None:
        return ""
    shape = fake_tensor(task.graph.nodes[read.original]).shape
    sources = shape[1] if len(shape) == 2 else None
    reads_logits = isinstance(align, StatisticalAlignment) or align.at == "logits"
    if not reads_logits or not isinstance(sources, int) or sources >= classes:
        return ""
    return (
        f"{align.kind} reads {sources} source classes for {classes} target classes, which they can "
        f"hardly tell apart; try gp.LinearHead({classes}, at='features'), or a source with more "
        "classes"
    )
