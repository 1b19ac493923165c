"""Entry point for training a program."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import TrainingError
from graphprog.spec.registry import to_json
from graphprog.train.class_weights import ClassWeight, weighted
from graphprog.train.data.datasets import open_split
from graphprog.train.data.splits import Split
from graphprog.train.engines import ENGINES
from graphprog.train.history import History
from graphprog.train.loop.checkpoint import read_snapshot
from graphprog.train.loop.engine import Engine, require_task, require_trainable, running
from graphprog.train.loop.epoch import Trainer
from graphprog.train.loop.mapping import Mapping
from graphprog.train.loop.notes import few_classes_note
from graphprog.train.loop.randomness import preserved, reseed
from graphprog.train.loop.run import Callback, Run
from graphprog.train.loop.state import RunState
from graphprog.train.loop.tensorboard import Board
from graphprog.train.metrics import Given
from graphprog.train.objective import Loss, Objective, objective_of
from graphprog.train.progress import Bar
from graphprog.train.recipe import OptimizerMaker, Recipe, Schedule
from graphprog.utils.lazy import load
from graphprog.utils.tensor_tree import checksum

_PathLike = str | os.PathLike[str]


def fit(
    task: ReprogrammedModel,
    train: Any,
    validation: Any = None,
    *,
    epochs: int = 20,
    batch_size: int = 64,
    optimizer: str | OptimizerMaker = "adam",
    lr: float = 0.01,
    weight_decay: float = 0.0,
    schedule: str | Schedule = "constant",
    loss: str | Loss = "cross_entropy",
    accumulate: int = 1,
    precision: str = "no",
    patience: int | None = None,
    seed: int = 0,
    engine: str = "pytorch",
    warmup: float = 0.0,
    class_weight: ClassWeight | None = None,
    metrics: Given = (),
    monitor: str | None = None,
    reuse: str = "auto",
    memory: str = "normal",
    callbacks: Sequence[Callback] = (),
    checkpoint: _PathLike | None = None,
    log_dir: _PathLike | None = None,
    progress: bool | None = None,
) -> History:
    """Train the program of a task; the source model stays bit for bit the same.

    Runs on the device that accelerate selects; under ``accelerate launch`` or ``torchrun`` in many
    processes, which share every batch and so learn what one process learns, up to rounding. A
    statistical alignment is refreshed before the first epoch and then as its spec says, from the
    training split only, in eval mode. Afterwards, the task is in eval mode on its former device,
    with the program of the best epoch and the mapping that this epoch was measured with. The
    global random states do not change.

    Args:
        task: the task to train.
        train: a ``DataLoader``, used unchanged; or tensors or NumPy arrays ``(input, ...,
            labels)`` or ``(inputs, labels)`` with a tuple or a dict by input name; or one dict of
            inputs and labels; or a data set with a length whose items are ``(inputs, label)`` or
            dicts. Labels are int64 class numbers, or what the loss takes.
        validation: held-out data in any of these forms; it determines the best epoch.
        epochs: passes over the training data.
        batch_size: examples per forward pass, over all processes together.
        optimizer: ``adam``, ``adamw``, ``sgd`` (momentum 0.9); a description such as
            ``gp.Adam(1e-2, clip=1.0)``, or a function from the list of trainable parameters to an
            ``Optimizer``; these two ignore ``lr`` and ``weight_decay``.
        lr: learning rate.
        weight_decay: weight decay of the optimizer.
        schedule: factor of the learning rate, set before every step: ``constant``, ``linear`` or
            ``cosine`` (to 0), ``multistep`` (a tenth from 50 % of the steps on, a hundredth from
            72 %), or a function of the progress of the run after the warmup, in [0, 1).
        loss: ``cross_entropy`` of logits [B, K] and labels int64 [B], or dense logits
            [B, K, H, W] and masks [B, H, W]; ``binary_cross_entropy`` of logits and labels in
            [0, 1], several per row; ``mse`` or ``l1`` of floats and numbers of their shape; one
            of :mod:`graphprog.losses` for outputs and labels per token; or a function to a mean
            loss. A function takes the tensor that the task returns, or all outputs as it returns
            them, and labels of any form. A batch is weighted by its number of examples, not of
            labels.
        accumulate: batches per optimizer step, as if they were one large batch.
        precision: ``no``, ``bf16`` or ``fp16`` mixed precision.
        patience: stop after this number of epochs without a better one on the validation split.
        seed: seed of the order of the examples and of all randomness in a run.
        engine: ``pytorch``, or ``onnxruntime``, which first exports a training step (see
            :func:`graphprog.backends.onnxruntime.export_training`). The losses agree up to
            rounding. PyTorch evaluates the validation data on the CPU.
        warmup: part of the run, below 1, in which the learning rate rises linearly to its full
            value, before the schedule begins.
        class_weight: ``balanced``, which weights the classes in the training loss by N / (C · n_k)
            for n_k of N labels, C classes having any; or a number for each class. For
            ``cross_entropy``. The validation loss is not weighted.
        metrics: what is measured on the validation data beside loss and accuracy: names
            (``balanced_accuracy``, ``macro_f1``, ``auroc``, ``mean_iou``, ``mae``, ``r2``,
            ``perplexity``, ``accuracy``; torchmetrics computes them, from logits with the classes
            on axis 1), functions of all predictions and labels to a number, objects of
            torchmetrics, or a dict of these by name.
        monitor: what determines the best epoch: ``accuracy``, ``loss``, or a metric. A minus
            before the name says that smaller is better, where that is not known.
        reuse: what training leaves as it is, such as all before a head, is computed once for each
            sample, kept, and each epoch goes on from there: in ``memory``, on ``disk`` (a
            temporary file, mapped), or ``auto``: in memory if half of what is free suffices, else
            on disk, likewise. Results agree with ``off`` up to rounding. Random samples are run
            in every epoch; ``notes`` of the history says what was not kept, and why.
        memory: ``low`` keeps few values for the backward pass, which computes the others again, to
            the same bits, in up to 1.6 times the time. The graph is cut into stages where the
            fewest bytes pass. ``notes`` of the history says what is kept, and the largest memory
            of the first step. Values that were kept of samples (``reuse``) are something else.
        callbacks: functions of the task and the record of the epoch, called after every epoch; one
            that returns True ends the run.
        checkpoint: folder of this run. Its whole state is written there after every epoch. After
            an interruption, the same call resumes the run, to bit for bit the result of an
            uninterrupted one; if the run is finished, it returns at once, or goes on where
            ``epochs`` is larger than before. Either replaces the program of the task.
        log_dir: folder for TensorBoard.
        progress: None shows a bar on a terminal; True also prints one line per epoch elsewhere;
            False shows nothing.

    Returns:
        The history of the run. ``task.summary`` holds its key numbers, saved with the program.

    Raises:
        DataError: the task cannot take the data; the message has the place.
        BackendError: ONNX Runtime cannot take the steps.
        TrainingError: an argument is invalid; the loss does not depend on a trained tensor; the
            loss diverges in the first epoch (later, the run ends with the best program so far
            and a warning); the checkpoint belongs to another run; the source weights changed
            during training.
        FileError: the checkpoint is damaged; it or the log folder cannot be written.
        KeyboardInterrupt: Ctrl-C; its text says what is saved, and how to go on. The task holds
            the program of the best epoch.

    Example:
        >>> history = gp.fit(task, (images, labels), epochs=2, batch_size=2, lr=0.05)
        >>> len(history.records)
        2
    """
    require_task(task)
    require_trainable(task)
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        schedule=schedule,
        loss=loss,
        accumulate=accumulate,
        precision=precision,
        patience=patience,
        seed=seed,
        engine=engine,
        warmup=warmup,
        class_weight=class_weight,
        metrics=metrics,
        monitor=monitor,
        reuse=reuse,
        memory=memory,
    )
    needing = {"patience": patience, "monitor": monitor, "metrics": recipe.named_metrics or None}
    _check_arguments(needing, validation, callbacks)
    kind: type[Trainer] = load(ENGINES[engine])
    kind.require(recipe)
    with running(task, precision, log_dir, kind.on_processor) as machine, preserved(machine.device):
        reseed(seed)
        source = task.source_hash()
        objective = objective_of(task, loss)
        train_split = open_split(task, objective, "training", train)
        held_out = None
        if validation is not None:
            held_out = open_split(task, objective, "validation", validation)
        folder = None if checkpoint is None else Path(checkpoint)
        identity = _identity(recipe, source, task, train_split, held_out) if folder else {}
        trained = objective
        if class_weight is not None:
            trained = weighted(objective, class_weight, loss, train_split, machine)
        trainer = _trainer(kind, machine, recipe, trained, train_split, progress)
        board = Board(machine, log_dir is not None)
        state, start = RunState(), task.program_state()
        run = Run(
            trainer, objective, held_out, state, board, folder, identity, start, tuple(callbacks)
        )
        run.note(few_classes_note(task))
        try:
            _run(run, source)
        finally:
            board.close()
    return _history(run)


def _check_arguments(needing: dict[str, Any], validation: Any, callbacks: Any) -> None:
    """Check that there is a validation split for what needs one, and that callbacks are functions.

    Raises:
        TrainingError: one of them is not so.
    """
    for name, value in needing.items():
        if value is not None and validation is None:
            raise TrainingError(
                f"{name} needs a validation split", ["fit(task, train, validation)"]
            )
    several = isinstance(callbacks, Sequence) and not isinstance(callbacks, str)
    if not several or not all(map(callable, callbacks)):
        raise TrainingError(
            f"callbacks must be functions of the task and a record, not {callbacks!r:.80}",
            ["callbacks=[function]"],
        )


def _run(run: Run, source: str) -> None:
    """Start or resume a run, and finish it."""
    task = run.trainer.engine.task
    snapshot = None if run.folder is None else read_snapshot(run.folder, run.identity)
    run.trainer.engine.accelerator.wait_for_everyone()
    if snapshot is not None:
        run.resume(snapshot)
    if not run.is_over:
        with run.trainer.bar:
            run.go()
    run.note(run.state.collapsed)
    assert run.state.best is not None
    task.load_program_state(run.state.best)
    task.eval()
    if task.source_hash() != source:
        raise TrainingError(
            "the source weights changed during training: other code wrote to them",
            ["look for code that trains, moves or normalizes the source model during fit"],
        )
    task.summary = _history(run).summary()


def _trainer(
    kind: type[Trainer],
    engine: Engine,
    recipe: Recipe,
    objective: Objective,
    split: Split,
    progress: bool | None,
) -> Trainer:
    parameters = {
        name: parameter
        for name, parameter in engine.task.program.named_parameters()
        if parameter.requires_grad
    }
    optimizer: torch.optim.Optimizer | None = None
    if parameters:
        optimizer = recipe.make_optimizer(list(parameters.values()))
    mapping = Mapping.of(engine.task)
    shown = progress if engine.accelerator.is_main_process else False
    steps = split.steps(recipe.batch_size)
    bar = Bar(shown, recipe.epochs, None if steps is None else -(-steps // recipe.accumulate))
    parts = (engine, recipe, objective, split, parameters, optimizer, mapping, bar)
    return kind(*parts) if parameters else Trainer(*parts)


def _identity(
    recipe: Recipe, source: str, task: ReprogrammedModel, train: Split, held_out: Split | None
) -> dict[str, Any]:
    """Return what identifies a run, as JSON values; a checkpoint belongs to one run.

    The number of epochs does not: a run may go on.
    """
    settings = {name: value for name, value in recipe.settings().items() if name != "epochs"}
    constants: dict[str, torch.Tensor] = {}
    return {
        **settings,
        "program": to_json(task.spec, constants),
        "program seed": task.seed,
        "program constants": checksum(constants.values()),
        "source graph": task.base.fingerprint.text,
        "source weights": source,
        "training data": train.digest(),
        "validation data": None if held_out is None else held_out.digest(),
    }


def _history(run: Run) -> History:
    state, trainer = run.state, run.trainer
    examples = {"training": trainer.split.rows}
    if run.validation is not None:
        examples["validation"] = run.validation.rows
    return History(
        records=tuple(state.records),
        best_epoch=state.best_epoch,
        stopped=state.stopped,
        notes=tuple(state.notes),
        seconds=state.seconds,
        settings=trainer.recipe.settings(),
        examples=examples,
    )
