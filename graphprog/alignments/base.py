"""Base class of alignments: a spec of the value that is read, which builds a module for it."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from graphprog.errors import ProgramError
from graphprog.ir.graph import Graph
from graphprog.spec.registry import Spec
from graphprog.text.prompting.prompt import Prompt
from graphprog.values.context import BuildContext


@dataclass(frozen=True)
class Alignment(Spec, abc.ABC):
    """Base of alignments, which map values of the source model to logits of the target task.

    Attributes:
        at: key or alias of the interface whose value is read.
        after: alignment whose result is read instead, so that alignments compose:
            ``BayesianMap(10, after=LastToken())`` maps the scores of the next token.

    Example:
        >>> align = gp.FixedMap(classes=2)
        >>> assert isinstance(align, gp.Alignment)
        >>> task = gp.compile(graph, gp.Program(align=align))
    """

    may_come_first: ClassVar[bool] = True
    """False for what needs words, or examples, which only the last alignment is given."""

    takes_layer: ClassVar[bool] = False
    """True when only some rows of an affine layer's output are read: see :meth:`build`."""

    at: str = field(default="logits", kw_only=True)
    after: Alignment | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self._check_after()
        key: object = self.at
        if not isinstance(key, str) or not key.strip():
            raise ProgramError(
                f"{self.kind}: at must name an interface, not {self.at!r}",
                ['set at="logits"', "choose a key shown by print(graph.interfaces())"],
            )

    def _check_after(self) -> None:
        first: object = self.after
        if first is None:
            return
        if not isinstance(first, Alignment) or first.is_identity or not first.may_come_first:
            raise ProgramError(
                f"{self.kind}: after must be an alignment that needs neither words nor examples, "
                f"not {first!s:.80}",
                ["after=gp.LastToken()", "after=gp.Slice(...)"],
            )
        if self.at != "logits":
            raise ProgramError(
                f"{self.kind}: at={self.at!r} has no meaning beside after, whose result is read",
                [f"{first.kind}(at={self.at!r})"],
            )

    @property
    def steps(self) -> tuple[Alignment, ...]:
        """The alignments that are applied, the first one first."""
        return (*(self.after.steps if self.after is not None else ()), self)

    @property
    def is_identity(self) -> bool:
        """Whether there is nothing to insert after the value that is read."""
        return False

    @property
    def inserted_mark(self) -> int | None:
        """The mark of an inserted entry in the inputs that are read; None if there is none."""
        return None

    @abc.abstractmethod
    def build(self, context: BuildContext) -> nn.Module:
        """Make the module that maps the source's values to target logits.

        Args:
            context: the value that is read, and the inputs that :meth:`reads` names, possibly fake
                or meta: only shape, dtype and device are used. With a ``layer``, the module takes
                the layer's input, weight and bias in place of the value, and computes only the
                rows it needs.

        Returns:
            A module that takes the value, or the parts of the layer, then the inputs read, and has
            one output. It is on the device of the value, or on the CPU if that is fake or meta,
            and its forward consists of traceable operators only.

        Raises:
            ProgramError: the value does not suit this alignment.
        """

    def reads(self, graph: Graph) -> tuple[str, ...]:
        """Names of inputs of the graph that the module takes after the value."""
        return ()

    def with_tokens(self, prompt: Prompt) -> Alignment:
        """Replace words by the tokens of a tokenizer; other alignments are returned unchanged."""
        return self


def home_of(values: torch.Tensor) -> torch.device:
    """Device for tensors of an alignment: that of real values, the CPU for fake or meta ones."""
    if isinstance(values, FakeTensor) or values.device.type == "meta":
        return torch.device("cpu")
    return values.device


def source_classes(alignment: Alignment, values: torch.Tensor) -> int:
    """Number of source classes K_S of values [B, K_S].

    Raises:
        ProgramError: the values are not floating point, not of rank 2, or K_S is not a constant.
    """
    place = f"{alignment.kind} reads {alignment.at!r}"
    if not values.is_floating_point():
        raise ProgramError(f"{place}: its dtype must be floating point, not {values.dtype}")
    if values.ndim != 2:
        raise ProgramError(
            f"{place}: its shape must be [batch, source classes], not {list(values.shape)}",
            ["choose an interface of rank 2", 'use LinearHead(classes, at=..., pool="mean")'],
        )
    count = values.shape[1]
    if not isinstance(count, int):
        raise ProgramError(
            f"{place}: the number of source classes {count} varies between calls",
            ["capture the model with a fixed class axis"],
        )
    return count
