"""Base class of manipulations: operator τ at a location ℓ with a configuration λ."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import ClassVar

from torch import nn

from graphprog.spec.registry import Spec
from graphprog.values.context import BuildContext


@dataclasses.dataclass(frozen=True)
class Manipulation(Spec):
    """Base of manipulations, which change the value at an interface.

    A manipulation is data. :meth:`build` makes a module, which is then traced and inlined into the
    graph like any model. The module takes the value at the interface and returns the new value; it
    may return a second tensor, for other parts to read.

    Write your own as a frozen dataclass registered by :func:`graphprog.spec.spec`. It then prints,
    saves and loads like the built-in ones; other packages can offer theirs as entry points.

    Example:
        >>> class Shift(gp.Manipulation):  # with @graphprog.spec.spec("shift"), it saves and loads
        ...     def build(self, context):
        ...         return nn.LayerNorm(context.shape[-1:])
    """

    lowering: ClassVar[str] = "insert"
    """Kind of the pass that lowers it into a graph."""

    at: str = dataclasses.field(default="input", kw_only=True)
    name: str = dataclasses.field(default="", kw_only=True)

    @property
    def label(self) -> str:
        """Name of this part of the program: ``name``, or the kind."""
        return (self.name or self.kind).replace("-", "_")

    @property
    def reads(self) -> tuple[str, ...]:
        """Further inputs of the module, after the value at the interface.

        Each is an interface or its alias; ``source.<path>``, a frozen tensor of the source;
        ``program.<part>``, the second output of another part of the program; or
        ``program.<part>.<path>``, a tensor of that part. A ``*`` in them matches the same text as
        the ``*`` of ``at``.
        """
        return ()

    @property
    def new_inputs(self) -> tuple[str, ...]:
        """Inputs that the model gets for this part, as the last arguments of its module.

        Each has the shape and dtype of the value at the interface. A ``*`` stands for that of
        ``at``. Parts may share an input of one type.
        """
        return ()

    @abstractmethod
    def build(self, context: BuildContext) -> nn.Module:
        """Make the module: value at the interface, then further inputs -> new value.

        Args:
            context: the value [B, ...] and the inputs that :attr:`reads` names, as fake tensors;
                the key of the interface, for messages; and the random generator of initial values.
        """
