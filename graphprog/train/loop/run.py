"""The epochs of a training run: refresh, training, validation, checkpoint."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import TrainingError
from graphprog.ir.memory.recompute import low_memory
from graphprog.train.data.splits import Split
from graphprog.train.history import EpochRecord
from graphprog.train.loop.checkpoint import Snapshot, write_snapshot
from graphprog.train.loop.epoch import Trainer
from graphprog.train.loop.evaluate import measure
from graphprog.train.loop.gradient_check import check_gradients
from graphprog.train.loop.mapping import Refresh, empty_class_note
from graphprog.train.loop.meter import DivergenceError, Scores
from graphprog.train.loop.notes import collapse_note
from graphprog.train.loop.randomness import reseed
from graphprog.train.loop.reuse import fresh, kept_splits
from graphprog.train.loop.state import ProgramState, RunState
from graphprog.train.loop.tensorboard import Board
from graphprog.train.objective import Objective
from graphprog.train.reuse.sharing import Sharing

Callback = Callable[[ReprogrammedModel, EpochRecord], bool | None]


@dataclass
class Run:
    """A training run in progress.

    Attributes:
        trainer: takes the steps.
        objective: measures the validation data, without class weights.
        validation: held-out data, if there is any.
        state: progress of the run.
        board: logs the metrics of every epoch.
        folder: folder of the checkpoint, if one is kept.
        identity: what identifies this run, as JSON values.
        start: the program before the first step.
        callbacks: called after every epoch.
        saved: number of epochs in the checkpoint.
    """

    trainer: Trainer
    objective: Objective
    validation: Split | None
    state: RunState
    board: Board
    folder: Path | None
    identity: dict[str, Any]
    start: ProgramState
    callbacks: Sequence[Callback] = ()
    saved: int = 0

    def __post_init__(self) -> None:
        self._saved: list[str] = []  # what is kept for the backward pass, where memory is saved

    @property
    def epochs(self) -> int:
        """The number of epochs; 1 if nothing is trained."""
        return self.trainer.recipe.epochs if self.trainer.parameters else 1

    @property
    def is_over(self) -> bool:
        """Whether no epoch remains."""
        return len(self.state.records) >= self.epochs or bool(self.state.stopped)

    def go(self) -> None:
        """Run the epochs that remain.

        Raises:
            KeyboardInterrupt: with what is saved and how to go on as its text.
            TrainingError: the run diverged in or before the first epoch.
        """
        try:
            off = self.trainer.recipe.reuse == "off"
            kept = nullcontext("") if off else TemporaryDirectory(prefix="graphprog-")
            with kept as folder, low_memory(self.trainer.recipe.memory == "low") as saved:
                self._saved = saved
                self._keep(Path(folder))
                self._run_epochs()
        except KeyboardInterrupt as interrupt:
            interrupt.args = (self._keep_interrupted(),)
            raise

    def _keep(self, folder: Path) -> None:
        """Compute once what training does not change, where the recipe says so."""
        trainer = self.trainer
        again = self.epochs > 1 or self.folder is not None  # a run with a checkpoint may go on
        if not again and Sharing.now() is None:
            return
        trainer.split, self.validation, reason = kept_splits(trainer, self.validation, folder)
        if reason and trainer.recipe.reuse != "auto":
            self.note(reason)
        elif reason and reason not in self.state.notes:
            self.state.notes.append(reason)

    def _drop_stale(self) -> None:
        """Go back to the samples themselves where they changed since values were kept."""
        for name, owner in (("split", self.trainer), ("validation", self)):
            before = getattr(owner, name)
            if before is not None and (now := fresh(before)) is not before:
                setattr(owner, name, now)
                self.note(
                    "samples changed while the program was trained: the source runs on them "
                    "again, instead of reusing what it gave before"
                )

    def _run_epochs(self) -> None:
        while not self.is_over:
            try:
                record, counts, collapsed = self._epoch(len(self.state.records))
            except DivergenceError as error:
                self._stop_diverged(error)
                return
            task = self.trainer.engine.task
            recipe = self.trainer.recipe
            program = task.program_state()
            self.state.add(record, program, recipe.patience, recipe.monitored, collapsed)
            self.state.counts = counts
            self.board.log(record)
            self.trainer.bar.end(record)
            self._call(record)
            self.save()

    def save(self) -> None:
        """Write the checkpoint, from one process."""
        accelerator = self.trainer.engine.accelerator
        if self.folder is not None and accelerator.is_main_process:
            optimizer, scaler = self.trainer.optimizer, accelerator.scaler
            streams = [source.get_state() for source in self._generators()]
            snapshot = Snapshot(
                state=self.state,
                program=self.trainer.engine.task.program_state(),
                optimizer=None if optimizer is None else optimizer.state_dict(),
                scaler={} if scaler is None else scaler.state_dict(),
                generators=streams,
            )
            write_snapshot(self.folder, self.identity, snapshot)
        self.saved = len(self.state.records)

    def resume(self, snapshot: Snapshot) -> None:
        """Restore the run from a snapshot.

        Raises:
            TrainingError: it has more epochs than the run is to have.
        """
        self.state = snapshot.state
        self.saved = len(self.state.records)
        if self.saved > self.epochs:
            raise TrainingError(
                f"{self.folder} has {self.saved} epochs of this run, more than "
                f"epochs={self.epochs}",
                [f"epochs={self.saved} or more", "another checkpoint folder"],
            )
        self.trainer.engine.task.load_program_state(snapshot.program)
        if self.trainer.optimizer is not None and snapshot.optimizer is not None:
            self.trainer.optimizer.load_state_dict(snapshot.optimizer)
        if snapshot.scaler:
            self.trainer.engine.accelerator.scaler.load_state_dict(snapshot.scaler)
        for source, stream in zip(self._generators(), snapshot.generators, strict=True):
            source.set_state(stream)

    def note(self, text: str) -> None:
        """Warn the user once, and keep the note in the history."""
        if text and text not in self.state.notes:
            self.state.notes.append(text)
            if self.trainer.engine.accelerator.is_main_process:
                warnings.warn(text, UserWarning, stacklevel=2)

    def _generators(self) -> list[torch.Generator]:
        splits = (self.trainer.split, self.validation)
        found = [source for split in splits if split is not None for source in split.generators()]
        return list({id(source): source for source in found}.values())

    def _call(self, record: EpochRecord) -> None:
        """Call the callbacks; one that returns True ends the run."""
        for callback in self.callbacks:
            if callback(self.trainer.engine.task, record) is True and not self.state.stopped:
                name = getattr(callback, "__name__", type(callback).__name__)
                self.state.stopped = f"the callback {name} ended the run"

    def _epoch(self, epoch: int) -> tuple[EpochRecord, torch.Tensor | None, str]:
        started = time.monotonic()
        trainer, counts = self.trainer, None
        trainer.bar.begin(epoch)
        seed = trainer.recipe.seed
        self._drop_stale()
        reseed(seed, epoch, 2)
        refresh = self._refresh(epoch)
        if epoch == 0:
            self._prepare()
        trainer.set_lr(epoch)
        lr = trainer.optimizer.param_groups[0]["lr"] if trainer.optimizer else 0.0
        reseed(seed, epoch, 3)
        if trainer.parameters:
            trainer.split.begin(epoch)
            scores, counts = trainer.train(epoch)
            self._note_memory()
        else:
            scores = _finite(self._measure(trainer.split.in_order()))
        reseed(seed, epoch, 4)
        held_out = self._validate()
        record = EpochRecord(
            epoch=epoch + 1,
            train_loss=scores.loss,
            train_accuracy=scores.accuracy,
            validation_loss=None if held_out is None else held_out.loss,
            validation_accuracy=None if held_out is None else held_out.accuracy,
            lr=lr,
            seconds=time.monotonic() - started,
            mapping="" if refresh is None else str(refresh.report),
            mapping_changes=None if refresh is None else refresh.changes,
            metrics={} if held_out is None else dict(held_out.metrics),
        )
        name = "training" if held_out is None else "validation"
        labels = tuple(trainer.engine.task.spec.contract.labels)
        return record, counts, collapse_note(held_out or scores, name, labels)

    def _note_memory(self) -> None:
        """Say once what the first step took, and what it kept for its backward pass."""
        peak = self.trainer.peak
        if peak is not None and not any(
            text.startswith("memory='low'") for text in self.state.notes
        ):
            kept = "; ".join(self._saved) or "nothing was kept"
            self.state.notes.append(
                f"memory='low': values of the first step took at most {peak / 1e6:.3g} MB, beside "
                f"weights; {kept}"
            )

    def _validate(self) -> Scores | None:
        if self.validation is None:
            return None
        return _finite(self._measure(self.validation))

    def _measure(self, split: Split) -> Scores:
        trainer = self.trainer
        return measure(trainer.engine, split, trainer.recipe, self.objective)

    def _refresh(self, epoch: int) -> Refresh | None:
        """Refresh the mapping before an epoch, if it is due."""
        mapping, trainer = self.trainer.mapping, self.trainer
        if mapping is None or not mapping.is_due(epoch):
            return None
        counts = self.state.counts if mapping.spec.collect == "epoch" else None
        if counts is None:
            counts = mapping.read(trainer.engine, trainer.split, trainer.recipe.batch_size)
        refresh = mapping.refresh(counts)
        labels = trainer.engine.task.spec.contract.labels
        self.note(empty_class_note(refresh.report, labels))
        return refresh

    def _prepare(self) -> None:
        """Run the checks that precede the first step."""
        trainer = self.trainer
        if not trainer.parameters:
            self.state.notes.append(
                "nothing to train: the mapping was set and the program measured"
            )
            return
        if self.validation is None:
            self.state.notes.append("no validation split: the last program is kept, not the best")
        share = trainer.engine.share
        first = next(trainer.split.in_order().batches(trainer.recipe.batch_size, share))
        batch = first.to(trainer.engine.device)
        for text in check_gradients(trainer.engine, batch, trainer.objective):
            self.note(text)

    def _stop_diverged(self, error: DivergenceError) -> None:
        best = self.state.best
        self.trainer.engine.task.load_program_state(self.start if best is None else best)
        if best is None:
            raise TrainingError(
                f"training diverged before any epoch was finished: {error}",
                ["use a smaller lr", 'use precision="no"', "check the data and the loss function"],
            ) from error
        self.state.stopped = f"{error}; the program of epoch {self.state.best_epoch} was kept"
        self.note(f"training diverged: {self.state.stopped}")
        self.save()

    def _keep_interrupted(self) -> str:
        """Save the finished epochs, let the task hold the best, and say so."""
        state, done = self.state, len(self.state.records)
        if self.saved < done:
            self.save()
        self.trainer.engine.task.load_program_state(state.best or self.start)
        held = "the task holds the program that it began with"
        if done:
            held = f"the task holds the program of epoch {state.best_epoch}"
        lines = [f"training was interrupted in epoch {done + 1} of {self.epochs}; {held}"]
        if done:
            lines.append("gp.save(task, path) writes it to a file")
        if self.folder is None:
            lines.append("with checkpoint=folder, the same call of gp.fit would go on")
        elif done:
            lines.append(
                f"epochs 1 to {done} are saved in {self.folder}: to go on, call gp.fit again with "
                f"checkpoint={str(self.folder)!r} and the same arguments"
            )
        return "; ".join(lines)


def _finite(scores: Scores) -> Scores:
    if not torch.tensor(scores.loss).isfinite():
        raise DivergenceError("the loss on the validation data is not finite")
    return scores
