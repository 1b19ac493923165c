"""The concatenative operator: more entries on one axis of a value."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from torch import nn

from graphprog.errors import InterfaceError, ProgramError
from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.meanings import checked_meanings
from graphprog.spec.checks import require_choice
from graphprog.spec.registry import spec
from graphprog.values.base import Fixed, Learnable
from graphprog.values.conditioning import Conditioned
from graphprog.values.context import BuildContext
from graphprog.values.entries import Derived, Made, Shared, entries_module
from graphprog.values.reparameterized import Reparameterized

Prompt = Learnable | Fixed | Reparameterized | Shared | Derived | Conditioned
"""What the entries of a prompt can be."""

TABLES = ("refuse", "zeros")


@spec("concatenative")
@dataclasses.dataclass(frozen=True)
class Concatenative(Manipulation):
    """Insert entries along one axis of a value; everything behind is re-derived for the length.

    At ``tokens`` this is prompt tuning (Lester et al., EMNLP 2021: in front, ``offset=0``); at
    ``embedding`` with ``offset=1`` VPT-shallow (Jia et al., ECCV 2022: behind the class token,
    after the positions). The model computes what it would compute on a longer sequence: positions
    of later entries move on, masks admit the new ones, and a head that reads entry 0 reads a
    prompt if that is what stands there.

    Attributes:
        at: interface; one place.
        name: of the program's part; the kind where empty.
        length: how many entries, 0 or more.
        axis: of the value; axis 0 is the batch, or the nodes of a packed graph.
        offset: in front of which entry: 0 is the front, 1 behind the class token, -1 the end.
        value: the entries, of the shape of the interface without the batch, with ``length`` on
            the axis: learnt, fixed, computed as :mod:`graphprog.reparameterized` does, from the
            example (``Conditioned``), or from another part's (``Shared``, ``Derived``).
        init: shorthand for ``value=Learnable(init)``: a word, or one of
            :mod:`graphprog.initializers`.
        tables: what becomes of a tensor of the model that has the fixed length of the axis, such as
            learnt positions: ``refuse``, or ``zeros`` where it is added, so that the new entries
            get none of it.
        until: interface from which on the entries are gone again, such as the input of a pooling
            that is to leave them out, or ``logits`` for one output a token; empty keeps them.
        input_roles: meaning of the model's other inputs where they carry the axis, by name, as a
            mapping or as pairs: ``present``
            (1 or True, as in masks), ``zero`` (token types, additive masks) or ``positions``. What
            is not said is told by use: truth values and numbers that are not looked up count as
            masks, numbers that are looked up are zero.

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
                f"the value of {self.kind} is a {type(self.value).__name__}",
                ["gp.Learnable(init, scale)", "gp.Fixed(tensor)", "gp.reparameterized.MLP(hidden)"],
            )
        object.__setattr__(self, "input_roles", checked_meanings(self.input_roles))
        if self.length < 0:
            raise ProgramError(f"{self.kind}: a length of {self.length} entries is negative")
        if self.offset < -1:
            raise ProgramError(
                f"{self.kind}: offset {self.offset}; entries stand in front of entry 0, 1, ..., "
                "or at the end, -1"
            )
        require_choice(self.kind, "tables", self.tables, TABLES)

    @property
    def reads(self) -> tuple[str, ...]:
        """What the entries are made of, where they are."""
        return self.value.reads if isinstance(self.value, Made) else ()

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module that gives the entries, for a float value.

        Raises:
            InterfaceError: the value has no such axis, or holds no floats.
            ProgramError: the entries do not fit.
        """
        value = context.value
        if not 0 <= self.axis < value.ndim:
            raise InterfaceError(
                f"{context.where} has {value.ndim} axes, so none is axis {self.axis}",
                [f"axis=0 to {value.ndim - 1}"],
            )
        if self.axis == 0:
            context = dataclasses.replace(context, value=value[None])
        return entries_module(self.value, context.with_entries(self.axis or 1, self.length))
