"""Training several programs on one source, which runs on every sample once."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import GraphprogError, TrainingError
from graphprog.train.history import History
from graphprog.train.loop.engine import require_task
from graphprog.train.loop.fit import fit
from graphprog.train.reuse.sharing import sharing

_SETTINGS = tuple(inspect.signature(fit).parameters)[2:]

Runs = Mapping[str, tuple[ReprogrammedModel, Any, Mapping[str, Any]]]
"""Task, training data and settings of every run, by name."""


def fit_many(runs: Runs) -> dict[str, History]:
    """Train several programs on one source, such as seeds, learning rates or methods.

    Each result is that of :func:`graphprog.fit` with the same arguments, up to rounding. What a
    program does not change is computed once for each sample and shared by all runs whose programs
    leave the same values as they are; the samples of a data set are read once, where memory or
    disk suffices and they are not random. From there, the runs follow one another, so that memory
    is that of one run and of what is shared. A run that stops early costs nothing after that.

    Args:
        runs: for each name the task, its training data, and a mapping of further arguments of
            :func:`graphprog.fit`, ``validation`` among them. Data are shared if they are the same
            objects, or tuples of the same tensors.

    Returns:
        The history of every run, by name. Every task holds its trained program.

    Raises:
        TrainingError: a run is not such a triple, an argument is unknown, a task is there twice,
            or the tasks have several sources; or as :func:`graphprog.fit`, with a note that names
            the run. Runs before it are finished.
        DataError: as :func:`graphprog.fit`, likewise.

    Example:
        >>> tasks = [gp.compile(graph, gp.Program(align=gp.LinearHead(2))) for _ in range(2)]
        >>> rates = {"fast": {"lr": 0.1, "epochs": 2}, "slow": {"lr": 0.01, "epochs": 2}}
        >>> runs = {name: (tasks.pop(), (images, labels), rates[name]) for name in rates}
        >>> histories = gp.fit_many(runs)
    """
    _check(runs)
    histories: dict[str, History] = {}
    with sharing() as shared:
        for name, (task, data, settings) in runs.items():
            shared.data = {"training": data, "validation": settings.get("validation")}
            try:
                histories[name] = fit(task, data, **settings)
            except (GraphprogError, KeyboardInterrupt) as error:
                done = ", ".join(histories) or "none"
                error.add_note(f"in run {name!r} of gp.fit_many; finished before: {done}")
                raise
    return histories


def _check(runs: Any) -> None:
    """Check the form of all runs before the first begins.

    Raises:
        TrainingError: as :func:`fit_many`.
    """
    form = 'gp.fit_many({"name": (task, (images, labels), {"lr": 0.01})})'
    if not isinstance(runs, Mapping) or not runs:
        raise TrainingError(f"fit_many needs runs by name, not {runs!r:.60}", [form])
    seen: dict[int, str] = {}
    sources: dict[int, str] = {}
    for name, run in runs.items():
        if not isinstance(run, tuple | list) or len(run) != 3 or not isinstance(run[2], Mapping):
            raise TrainingError(
                f"run {name!r} must be a task, its data, and a mapping of settings", [form]
            )
        task, _, settings = run
        require_task(task)
        unknown = [str(one) for one in settings if one not in _SETTINGS]
        if unknown:
            raise TrainingError(
                f"run {name!r}: gp.fit has no argument {unknown[0]!r}",
                [f"one of {', '.join(_SETTINGS)}"],
            )
        if id(task) in seen:
            raise TrainingError(
                f"runs {seen[id(task)]!r} and {name!r} train the same task",
                ["give each run a task of its own: gp.compile(graph, program)"],
            )
        seen[id(task)] = str(name)
        sources[id(task.base.weights.source)] = str(name)
    if len(sources) > 1:
        one, other = list(sources.values())[:2]
        raise TrainingError(
            f"runs {one!r} and {other!r} have different sources",
            ["capture the source once, and compile all programs into that graph"],
        )
