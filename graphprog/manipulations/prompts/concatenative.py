"""The concatenative operator: insert entries along one axis of a value."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from torch import nn

from graphprog.errors import InterfaceError, ProgramError
from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.meanings import checked_meanings
from graphprog.spec.checks import require_choice, require_position
from graphprog.spec.registry import spec
from graphprog.values.base import Fixed, Learnable
from graphprog.values.conditioning import Conditioned
from graphprog.values.context import BuildContext
from graphprog.values.entries import Derived, Made, Shared, entries_module
from graphprog.values.reparameterized import Reparameterized

Prompt = Learnable | Fixed | Reparameterized | Shared | Derived | Conditioned
"""Types of prompt entries."""

TABLES = ("refuse", "zeros")


@spec("concatenative")
@dataclasses.dataclass(frozen=True)
class Concatenative(Manipulation):
    """Insert entries along one axis of a value; everything after it adapts to the new length.

    At ``tokens`` this is prompt tuning (Lester et al., EMNLP 2021; before the tokens,
    ``offset=0``); at ``embedding`` with ``offset=1`` it is VPT-shallow (Jia et al., ECCV 2022;
    after the class token and the position embedding). The model computes what it would compute for
    a longer sequence: positions of later entries shift, masks admit the new entries, and a head
    that reads entry 0 reads a prompt entry if it is there.

    Attributes:
        at: a single interface.
        name: name of the part; the kind if empty.
        length: number of entries, 0 or more.
        axis: axis of the value; 0 for the nodes of a packed graph, and for models that keep the
            sequence before the batch. The axis of the batch is refused.
        offset: index of the entry before which to insert: 0 is the beginning, 1 after the class
            token, -1 the end.
        value: the entries, in the shape of the interface without the batch and with ``length`` on
            the axis: learned, fixed, reparameterized (:mod:`graphprog.reparameterized`), computed
            from the example (``Conditioned``) or from another part (``Shared``, ``Derived``).
        init: shorthand for ``value=Learnable(init)``: a word, or one of
            :mod:`graphprog.initializers`.
        tables: how to extend a tensor of the model with the fixed length of the axis, such as
            learned positions: ``refuse``, or insert ``zeros`` if it is added, so that it does not
            affect the new entries.
        until: interface at which the entries are removed again, such as the input of a pooling, or
            ``logits`` for one output per token; empty keeps them.
        input_roles: roles of the model's side inputs that have the axis, by name, as a mapping or
            as pairs: ``present`` (1 or True, as in masks), ``zero`` (token types, additive masks)
            or ``positions``. Roles not given are derived from use: masks are present, or zero if
            what is true is hidden; numbers that are looked up are zero. An input whose use does not
            show its role is refused.

    Example:
        >>> prompt = gp.Concatenative(at="tokens", length=4, init="vocabulary", until="logits")
        >>> task = gp.compile(language, gp.Program([prompt]))
        >>> assert task(ids).shape == language(ids).shape
    """

    lowering: ClassVar[str] = "extend-axis"

    length: int = 10
    axis: int = 1
    offset: int = 0
    value: Prompt = dataclasses.field(default_factory=lambda: Learnable("normal", 0.02))
    tables: str = "refuse"
    until: str = ""
    input_roles: tuple[tuple[str, str], ...] = ()
    init: dataclasses.InitVar[Any] = None

    def __post_init__(self, init: Any) -> None:
        if init is not None:
            object.__setattr__(self, "value", Learnable(init))
        if not isinstance(self.value, Prompt):
            raise ProgramError(
                f"the value of {self.kind} cannot be a {type(self.value).__name__}",
                [
                    "use gp.Learnable(init, scale)",
                    "use gp.Fixed(tensor)",
                    "use gp.reparameterized.MLP(hidden)",
                ],
            )
        object.__setattr__(self, "input_roles", checked_meanings(self.input_roles))
        if self.length < 0:
            raise ProgramError(f"{self.kind}: length {self.length} is negative")
        if self.offset < -1:
            raise ProgramError(
                f"{self.kind}: offset must be 0 or more (before that entry), or -1 (at the end), "
                f"not {self.offset}"
            )
        require_position(self.kind, "length", self.length)
        require_position(self.kind, "offset", self.offset)
        require_choice(self.kind, "tables", self.tables, TABLES)

    @property
    def reads(self) -> tuple[str, ...]:
        """Inputs from which the entries are computed, if any."""
        return self.value.reads if isinstance(self.value, Made) else ()

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module that computes the entries, for a float value.

        Raises:
            InterfaceError: the value has no such axis, or is not floating point.
            ProgramError: the entries have another shape.
        """
        value = context.value
        if not 0 <= self.axis < value.ndim:
            raise InterfaceError(
                f"{context.where} has {value.ndim} axes, but axis is {self.axis}",
                [f"set axis= to 0 to {value.ndim - 1}"],
            )
        if self.axis == 0:
            context = dataclasses.replace(context, value=value[None])
        return entries_module(self.value, context.with_entries(self.axis or 1, self.length))
