"""Losses for outputs per token, which skip the entries that a program inserted.

Each is made for a task and passed to training:
``gp.fit(task, data, loss=gp.losses.TokenClassification(task))``. Labels are those of the original
tokens, so that the same data serve any length of prompt.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch.nn import functional
from torch.utils import _pytree as pytree

from graphprog.compiler.inserted_entries import inserted, original, without_inserted
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import DataError, ProgramError
from graphprog.ir.fake import fake_value
from graphprog.spec.checks import require_texts
from graphprog.train.objective import IGNORED, Places

__all__ = ["IGNORED", "CausalLM", "Span", "TokenClassification", "inserted", "original"]

Inputs = tuple[torch.Tensor, ...]
Pair = tuple[torch.Tensor, torch.Tensor]
_MOST = 0.75
"""Share of the positions up to which logits are computed where labels count."""


class _Output:
    """One output [B, S, ...] of a task.

    Attributes:
        number: of the output.
        entries: entries that the program inserted into its axis 1.
        classes: length of its last axis; None if it is dynamic.
    """

    def __init__(self, task: ReprogrammedModel, name: str, rank: int) -> None:
        self.entries = inserted(task, name)
        self.number = task.graph.outputs.index(name)
        value = fake_value(task.graph.output_nodes[self.number])
        if value.ndim != rank or not value.is_floating_point():
            raise ProgramError(
                f"output {name!r} is {value.dtype}{list(value.shape)}; this loss needs floats with "
                f"{rank} axes, where axis 1 is the tokens"
            )
        for one in self.entries:
            if one.axis != 1:
                raise ProgramError(
                    f"part {one.part!r} inserted entries into axis {one.axis} of output {name!r}, "
                    "but this loss expects them on axis 1, the tokens"
                )
        size = value.shape[-1]
        self.classes = size if isinstance(size, int) else None

    def of(self, outputs: Any) -> torch.Tensor:
        """Return the output with inserted entries, in at least float32."""
        value: torch.Tensor = pytree.tree_leaves(outputs)[self.number]
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value

    def original(self, outputs: Any) -> torch.Tensor:
        """Return the output at the original tokens."""
        return without_inserted(self.of(outputs), self.entries)


class _ByToken:
    """Cross-entropy of the logits [B, S, K] of tokens.

    Args:
        task: the task that the loss is for.
        output: name of the logits in ``task.graph.outputs``.

    Raises:
        ProgramError: the task has no such output, or the positions of inserted entries in it
            cannot be determined.
    """

    def __init__(self, task: ReprogrammedModel, output: str = "logits") -> None:
        self.task = task
        self.output = _Output(task, output, rank=3)

    def __call__(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean over the labels that count; 0 if none does.

        Args:
            outputs: outputs of the task.
            labels: int64 [B, S] of the original tokens; -100 for those that do not count.
        """
        return _mean(*self.pairs(outputs, labels))

    def score(self, outputs: Any, labels: torch.Tensor) -> Pair:
        """Return how many labels have the largest logit, and how many count."""
        logits, wanted = self.pairs(outputs, labels)
        return (logits.argmax(-1) == wanted).sum(), (wanted != IGNORED).sum()

    def check(self, inputs: Inputs, labels: torch.Tensor) -> None:
        """Check a batch.

        Raises:
            DataError: the inputs fail :meth:`ReprogrammedModel.check`; the labels are not int64
                [B, S] like the tokens, or not class numbers.
        """
        self.task.check(inputs)
        shapes = {tuple(part.shape[:2]) for part in inputs if part.ndim > 1}
        if labels.dtype != torch.int64 or tuple(labels.shape) not in shapes:
            raise DataError(
                f"labels must be int64, one per token of the inputs {sorted(shapes)}, not "
                f"{labels.dtype}{list(labels.shape)}",
                [f"use {IGNORED} for a token without a label"],
            )
        counted = labels[labels != IGNORED]
        classes = self.output.classes
        if len(counted) and (counted.min() < 0 or (classes and counted.max() >= classes)):
            raise DataError(
                f"labels lie in [{int(counted.min())}, {int(counted.max())}], but the output has "
                f"{classes} classes, numbered from 0",
                [f"use {IGNORED} for a token without a label"],
            )

    @abstractmethod
    def pairs(self, outputs: Any, labels: torch.Tensor) -> Pair:
        """Return logits [N, K] and the labels int64 [N] that they are compared with."""


class TokenClassification(_ByToken):
    """Cross-entropy of a class for every token, as in tagging; inserted entries do not count.

    Args:
        task: with logits [B, S, K]; labels are int64 [B, S], -100 for a token without one.
        output: name of the logits.

    Example:
        >>> tagger = gp.compile(language, gp.Program([gp.Concatenative(at="tokens", length=4)]))
        >>> loss = gp.losses.TokenClassification(tagger)
        >>> history = gp.fit(tagger, (ids, ids), loss=loss, epochs=1)
    """

    def pairs(self, outputs: Any, labels: torch.Tensor) -> Pair:
        """Return the logits of the original tokens, and their labels."""
        return self.output.original(outputs).flatten(0, 1), labels.flatten()


class CausalLM(_ByToken):
    """Cross-entropy of the next token, for every token.

    The loss shifts by one: the logits of a token are compared with the label of the next token, and
    those of the last entry of a prepended prompt with the label of the first token, as in prompt
    tuning (Lester et al., EMNLP 2021). Labels of inserted entries are -100. Where labels are -100,
    training computes no logits.

    Args:
        task: with logits [B, S, V]; labels are the token ids themselves, int64 [B, S], -100
            if the prediction does not count, such as at padding.
        output: name of the logits.

    Example:
        >>> writer = gp.compile(language, gp.Program([gp.Concatenative(at="tokens", length=4)]))
        >>> loss = gp.losses.CausalLM(writer)
        >>> history = gp.fit(writer, (ids, ids), loss=loss, epochs=1)
    """

    def pairs(self, outputs: Any, labels: torch.Tensor) -> Pair:
        """Return all logits but the last, and the labels of the next entries."""
        return self.output.of(outputs)[:, :-1].flatten(0, 1), self._next(labels).flatten()

    def _next(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the label of the next entry, at all entries but the last."""
        for one in self.output.entries:
            labels = one.fill(labels, IGNORED)
        return labels[:, 1:]

    def places(self, labels: torch.Tensor) -> Places | None:
        """Return the positions whose next token counts, with the loss of the logits there.

        None if they are most positions of a row, or if none counts.
        """
        given = fake_value(self.task.graph.placeholders[0])
        if not isinstance(given.shape[0], torch.SymInt):  # a batch of one size
            return None
        wanted = self._next(labels)
        counted = wanted != IGNORED
        longest = int(counted.sum(1).amax())
        if not 0 < longest <= _MOST * wanted.shape[1]:
            return None
        positions = counted.int().sort(dim=1, descending=True, stable=True)[1][:, :longest]
        return Places(self.output.number, positions, _AtPlaces(self, wanted.gather(1, positions)))


class _AtPlaces:
    """A loss of logits [B, L, V] at the positions that count, with labels [B, L]."""

    def __init__(self, loss: CausalLM, wanted: torch.Tensor) -> None:
        self._loss = loss
        self._wanted = wanted

    def __call__(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        return _mean(*self._pairs(outputs))

    def score(self, outputs: Any, labels: torch.Tensor) -> Pair:
        logits, wanted = self._pairs(outputs)
        return (logits.argmax(-1) == wanted).sum(), (wanted != IGNORED).sum()

    def check(self, inputs: Inputs, labels: torch.Tensor) -> None:
        self._loss.check(inputs, labels)

    def _pairs(self, outputs: Any) -> Pair:
        return self._loss.output.of(outputs).flatten(0, 1), self._wanted.flatten()


class Span:
    """Cross-entropy of the first and the last token of an answer, among the original tokens.

    Args:
        task: with two outputs of logits [B, S]; labels are int64 [B, 2], indices of original
            tokens. An index outside the text does not count.
        outputs: their names.

    Raises:
        ProgramError: as of :class:`TokenClassification`.

    Example:
        >>> prompt = gp.Program([gp.Concatenative(at="tokens", length=4)])
        >>> reader = gp.compile(answering, prompt)  # returns start_logits and end_logits
        >>> loss = gp.losses.Span(reader)(reader(ids), torch.tensor([[0, 2], [1, 1]]))
    """

    def __init__(
        self, task: ReprogrammedModel, outputs: tuple[str, str] = ("start_logits", "end_logits")
    ) -> None:
        require_texts("", "outputs", outputs)
        self.task = task
        self.outputs = tuple(_Output(task, name, rank=2) for name in outputs)

    def __call__(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean of the two cross-entropies, each over the labels that count."""
        first, last = (_mean(*pair) for pair in self._pairs(outputs, labels))
        return (first + last) / 2

    def score(self, outputs: Any, labels: torch.Tensor) -> Pair:
        """Return the number of rows with both tokens correct, and of rows where both count."""
        pairs = self._pairs(outputs, labels)
        right = torch.stack([logits.argmax(1) == wanted for logits, wanted in pairs])
        counted = torch.stack([wanted != IGNORED for _, wanted in pairs])
        return right.all(0).sum(), counted.all(0).sum()

    def check(self, inputs: Inputs, labels: torch.Tensor) -> None:
        """Check a batch.

        Raises:
            DataError: the inputs fail :meth:`ReprogrammedModel.check`; the labels are not int64
                [B, 2].
        """
        self.task.check(inputs)
        if labels.dtype != torch.int64 or labels.shape != (len(inputs[0]), 2):
            raise DataError(
                f"labels must be int64 [{len(inputs[0])}, 2], the first and the last token of the "
                f"answer in each row, not {labels.dtype}{list(labels.shape)}",
                ["pass torch.stack([starts, ends], 1)"],
            )

    def _pairs(self, outputs: Any, labels: torch.Tensor) -> list[Pair]:
        found = []
        for output, wanted in zip(self.outputs, labels.unbind(1), strict=True):
            logits = output.original(outputs)
            outside = (wanted < 0) | (wanted >= logits.shape[1])
            found.append((logits, wanted.masked_fill(outside, IGNORED)))
        return found


def _mean(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy over the labels that count; 0 if none does."""
    total = functional.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum")
    return total / (wanted != IGNORED).sum().clamp_min(1)
