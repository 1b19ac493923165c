"""Losses of outputs by token, which leave out what a program inserted.

Each is made for a task and is an argument of training:
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

__all__ = ["IGNORED", "CausalLM", "Span", "TokenClassification", "inserted", "original"]

IGNORED = -100
"""The label of a token that has none."""

Inputs = tuple[torch.Tensor, ...]
Pair = tuple[torch.Tensor, torch.Tensor]


class _Output:
    """One output [B, S, ...] of a task, found among what it returns.

    Attributes:
        entries: that the program inserted into its axis 1.
        classes: length of its last axis; None where that varies.
    """

    def __init__(self, task: ReprogrammedModel, name: str, rank: int) -> None:
        self.entries = inserted(task, name)
        self._number = task.graph.outputs.index(name)
        value = fake_value(task.graph.output_nodes[self._number])
        if value.ndim != rank or not value.is_floating_point():
            raise ProgramError(
                f"output {name!r} is {value.dtype}{list(value.shape)}; this loss needs floats with "
                f"{rank} axes, of which axis 1 are the tokens"
            )
        for one in self.entries:
            if one.axis != 1:
                raise ProgramError(
                    f"part {one.part!r} inserted entries into axis {one.axis} of output {name!r}, "
                    "where this loss has no use for them: the tokens are on axis 1"
                )
        size = value.shape[-1]
        self.classes = size if isinstance(size, int) else None

    def of(self, outputs: Any) -> torch.Tensor:
        """The value with what was inserted, in float32 at least."""
        value: torch.Tensor = pytree.tree_leaves(outputs)[self._number]
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value

    def original(self, outputs: Any) -> torch.Tensor:
        """The value at the original tokens."""
        return without_inserted(self.of(outputs), self.entries)


class _ByToken:
    """Cross-entropy of the logits [B, S, K] of tokens.

    Args:
        task: which the loss is for.
        output: name of the logits in ``task.graph.outputs``.

    Raises:
        ProgramError: the task has no such output; or where inserted entries stand in it cannot be
            told.
    """

    def __init__(self, task: ReprogrammedModel, output: str = "logits") -> None:
        self.task = task
        self.output = _Output(task, output, rank=3)

    def __call__(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Mean over the labels that count; 0 where none does.

        Args:
            outputs: what the task returned.
            labels: int64 [B, S] of the original tokens; -100 where none counts.
        """
        return _mean(*self.pairs(outputs, labels))

    def score(self, outputs: Any, labels: torch.Tensor) -> Pair:
        """How many labels have the largest logit, and how many count."""
        logits, wanted = self.pairs(outputs, labels)
        return (logits.argmax(-1) == wanted).sum(), (wanted != IGNORED).sum()

    def check(self, inputs: Inputs, labels: torch.Tensor) -> None:
        """Check a batch.

        Raises:
            DataError: inputs as of :meth:`ReprogrammedModel.check`; labels that are not int64
                [B, S] as the tokens are, or not class numbers.
        """
        self.task.check(inputs)
        shapes = {tuple(part.shape[:2]) for part in inputs if part.ndim > 1}
        if labels.dtype != torch.int64 or tuple(labels.shape) not in shapes:
            raise DataError(
                f"labels must be int64, one a token of the inputs {sorted(shapes)}, not "
                f"{labels.dtype}{list(labels.shape)}",
                [f"{IGNORED} where a token has no label"],
            )
        counted = labels[labels != IGNORED]
        classes = self.output.classes
        if len(counted) and (counted.min() < 0 or (classes and counted.max() >= classes)):
            raise DataError(
                f"labels lie in [{int(counted.min())}, {int(counted.max())}], but the output has "
                f"{classes} classes, numbered from 0",
                [f"{IGNORED} where a token has no label"],
            )

    @abstractmethod
    def pairs(self, outputs: Any, labels: torch.Tensor) -> Pair:
        """Logits [N, K] and the labels int64 [N] that they are compared with."""


class TokenClassification(_ByToken):
    """A class for every token, as in tagging; entries that were inserted have no say.

    Args:
        task: with logits [B, S, K]; labels are int64 [B, S], -100 where a token has none.
        output: name of the logits.

    Example:
        >>> tagger = gp.compile(language, gp.Program([gp.Concatenative(at="tokens", length=4)]))
        >>> loss = gp.losses.TokenClassification(tagger)
        >>> history = gp.fit(tagger, (ids, ids), loss=loss, epochs=1)
    """

    def pairs(self, outputs: Any, labels: torch.Tensor) -> Pair:
        """Logits of the original tokens, and their labels."""
        return self.output.original(outputs).flatten(0, 1), labels.flatten()


class CausalLM(_ByToken):
    """The next token of every token.

    The shift by one is made here, once: the logits of a token are compared with the label of the
    one behind it, and those of the last entry of a prompt in front with the label of the first
    token, as in prompt tuning (Lester et al., EMNLP 2021). Labels of inserted entries are -100.

    Args:
        task: with logits [B, S, V]; labels are the token ids themselves, int64 [B, S], -100
            where the prediction does not count, such as at padding.
        output: name of the logits.

    Example:
        >>> writer = gp.compile(language, gp.Program([gp.Concatenative(at="tokens", length=4)]))
        >>> loss = gp.losses.CausalLM(writer)
        >>> history = gp.fit(writer, (ids, ids), loss=loss, epochs=1)
    """

    def pairs(self, outputs: Any, labels: torch.Tensor) -> Pair:
        """All logits but the last, and the labels of the entries behind."""
        for one in self.output.entries:
            labels = one.fill(labels, IGNORED)
        return self.output.of(outputs)[:, :-1].flatten(0, 1), labels[:, 1:].flatten()


class Span:
    """The first and the last token of an answer, each chosen among the original tokens.

    Args:
        task: with two outputs of logits [B, S]; labels are int64 [B, 2], numbers of original
            tokens. One outside of the text does not count.
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
        self.task = task
        self.outputs = tuple(_Output(task, name, rank=2) for name in outputs)

    def __call__(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Mean of the two cross-entropies, each the mean over the labels that count."""
        first, last = (_mean(*pair) for pair in self._pairs(outputs, labels))
        return (first + last) / 2

    def score(self, outputs: Any, labels: torch.Tensor) -> Pair:
        """Rows of which both tokens are right, and rows of which both count."""
        pairs = self._pairs(outputs, labels)
        right = torch.stack([logits.argmax(1) == wanted for logits, wanted in pairs])
        counted = torch.stack([wanted != IGNORED for _, wanted in pairs])
        return right.all(0).sum(), counted.all(0).sum()

    def check(self, inputs: Inputs, labels: torch.Tensor) -> None:
        """Check a batch.

        Raises:
            DataError: inputs as of :meth:`ReprogrammedModel.check`; labels that are not int64
                [B, 2].
        """
        self.task.check(inputs)
        if labels.dtype != torch.int64 or labels.shape != (len(inputs[0]), 2):
            raise DataError(
                f"labels must be int64 [{len(inputs[0])}, 2], the first and the last token of the "
                f"answer in each row, not {labels.dtype}{list(labels.shape)}",
                ["torch.stack([starts, ends], 1)"],
            )

    def _pairs(self, outputs: Any, labels: torch.Tensor) -> list[Pair]:
        found = []
        for output, wanted in zip(self.outputs, labels.unbind(1), strict=True):
            logits = output.original(outputs)
            outside = (wanted < 0) | (wanted >= logits.shape[1])
            found.append((logits, wanted.masked_fill(outside, IGNORED)))
        return found


def _mean(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over the labels that count; 0 where none does."""
    total = functional.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum")
    return total / (wanted != IGNORED).sum().clamp_min(1)
