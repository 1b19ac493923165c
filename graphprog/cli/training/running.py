"""Training and evaluation of a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from graphprog.cli.config.read import read_configuration
from graphprog.cli.config.schema import Configuration
from graphprog.cli.data.examples import Examples
from graphprog.cli.data.images import ImageForm
from graphprog.cli.data.splits import read_examples, read_splits
from graphprog.cli.training.interrupted import InterruptedRunError
from graphprog.cli.training.run_folder import RunFolder, is_main_process
from graphprog.cli.training.session import Session, new_session, trained_session
from graphprog.errors import DataError, FileError
from graphprog.io.saving import save
from graphprog.sources.reprogram import code_of
from graphprog.train.history import History
from graphprog.train.loop.evaluate import Evaluation, evaluate
from graphprog.train.loop.fit import fit

_RUNS = Path("runs")


def run_training(
    config: Path,
    changes: Sequence[str],
    output: Path | None,
    resume: bool,
    no_cache: bool,
    quiet: bool,
) -> None:
    """Train by a configuration, and write the folder of the run.

    Raises:
        FileError: the configuration has mistakes, or the folder has a run already.
        InterruptedRunError: by Ctrl-C; says how to go on.
    """
    importable()
    configuration = read_configuration(config, changes)
    folder = RunFolder(output or Path(configuration.output or _RUNS / config.stem))
    main = is_main_process()
    if main:
        _require_free(folder, resume)
    session, splits = new_session(configuration, no_cache)
    if main:
        folder.begin(configuration, session.known)
        if not quiet:
            typer.echo(f"program = {code_of(session.task.spec)}", err=True)
            _note_normalization(session)
    data = session.data(splits.train, train=True)
    held_out = None if splits.validation is None else session.data(splits.validation)
    try:
        history = fit(
            session.task,
            data,
            held_out,
            **_arguments(configuration),
            checkpoint=folder.checkpoint,
            progress=not quiet,
        )
    except KeyboardInterrupt as interrupt:
        words = ["graphprog train", str(config), *(f"--set {one}" for one in changes)]
        words += [f"--output {output}"] if output else []
        again = f"go on with: {' '.join(words)} --resume"
        raise InterruptedRunError(f"{folder.path} has all finished epochs; {again}") from interrupt
    if main:
        save(session.task, folder.program)
        folder.end(history)
        typer.echo(_told(history, session, folder))


def _require_free(folder: RunFolder, resume: bool) -> None:
    """Check that no run is overwritten.

    Raises:
        FileError: the folder has a run, and it is not to be resumed; or it has none.
    """
    if folder.has_begun and not resume:
        raise FileError(
            f"{folder.path}: holds a run already",
            ["--resume, which goes on with it", "--output FOLDER for another one"],
        )
    if resume and not folder.has_begun:
        raise FileError(f"{folder.path}: there is no run to resume", ["leave out --resume"])


def _note_normalization(session: Session) -> None:
    """Say so where it is not known how the model wants its images."""
    hints, section = session.task.base.hints, session.configuration.data
    if isinstance(session.form, ImageForm) and not section.mean and "mean" not in hints:
        typer.echo(
            "note: the normalization of the model is not known; it is given images in [0, 1] "
            "(data.mean and data.std say otherwise)",
            err=True,
        )


def _arguments(configuration: Configuration) -> dict[str, Any]:
    """Return the arguments of ``fit``."""
    return {**configuration.train.model_dump(), "seed": configuration.seed}


def _told(history: History, session: Session, folder: RunFolder) -> str:
    best = history.best
    scores = {
        "validation accuracy": best.validation_accuracy,
        "training accuracy": best.train_accuracy,
    }
    shown = [f"{name} {value:.2%}" for name, value in scores.items() if value is not None]
    loss = best.validation_loss if best.validation_loss is not None else best.train_loss
    words = [
        f"{session.task.trained_parameters():,} parameters",
        f"best epoch {best.epoch} of {len(history.records)}",
        *(shown[:1] or [f"loss {loss:.4f}"]),
        *(f"{name} {value:.4f}" for name, value in best.metrics.items()),
    ]
    return f"{folder.program}: {', '.join(words)}"


def run_evaluation(
    run: Path, split: str, data: str | None, batch_size: int | None, no_cache: bool
) -> Evaluation:
    """Measure a finished run.

    Args:
        run: folder of the run, or its configuration.
        split: ``test``, ``validation`` or ``train``.
        data: name of other data to measure on.
        batch_size: by default that of the training.
        no_cache: see :func:`open_model`.

    Raises:
        DataError: the configuration has no such split.
    """
    importable()
    folder = folder_of(run)
    configuration, _ = folder.read()
    folder.require_program()
    examples = _split(configuration, split, data)
    session = trained_session(folder, examples, no_cache)
    train = configuration.train
    return evaluate(
        session.task,
        session.data(examples),
        batch_size=batch_size or train.batch_size,
        loss=train.loss,
        precision=train.precision,
        metrics=train.metrics,
    )


def _split(configuration: Configuration, split: str, data: str | None) -> Examples:
    if data is not None:
        return read_examples(data, configuration.data)
    known: dict[str, Examples | None] = vars(read_splits(configuration.data, configuration.seed))
    if split not in known:
        raise DataError(f"there is no split {split!r}", [f"--split {', '.join(known)}"])
    examples = known[split]
    if examples is None:
        raise DataError(
            f"the configuration has no {split} data",
            ["--data NAME of examples with labels", "--split validation"],
        )
    return examples


def folder_of(run: Path) -> RunFolder:
    """Return the folder of a run, which a configuration names, too."""
    if run.suffix != ".toml":
        return RunFolder(run)
    configuration = read_configuration(run)
    return RunFolder(Path(configuration.output or _RUNS / run.stem))


def importable() -> None:
    """Let functions be found in the working directory."""
    if "" not in sys.path:
        sys.path.insert(0, "")
