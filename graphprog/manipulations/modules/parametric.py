"""The parametric operator: any module of the user's."""

from __future__ import annotations

import copy
import dataclasses

from torch import nn

from graphprog.errors import ProgramError
from graphprog.manipulations.base import Manipulation
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext


@spec("parametric")
@dataclasses.dataclass(frozen=True)
class Parametric(Manipulation):
    """A module of your own at an interface: ``gp.Parametric(module, at="hidden[2]")``.

    The module takes the value at the interface, then what ``reads`` names, and returns a value of
    the same shape and dtype; it may return a second tensor, which other parts then read as
    ``program.<name>``. It is copied, so that every match of a wildcard trains parameters of its
    own from the same start. It is traced in eval mode; of what behaves differently in training,
    batch norm does so here as well, and dropout is off.

    No code is saved, only the name of the class, a hash of its operations, and the tensors.
    Loading takes the module again: ``gp.load(path, graph, modules={"parametric": module})``. A
    class of your own derived from :class:`Manipulation` and registered by
    :func:`graphprog.spec.spec` needs no such thing: it makes its module from its own fields.

    Attributes:
        module: kept out of files.
        reads: further inputs; see :attr:`Manipulation.reads`.
        of: qualified name of the module's class; filled in.

    Example:
        >>> mlp = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        >>> task = gp.compile(graph, gp.Program([gp.Parametric(mlp, at="features")]))
        >>> sum(number.numel() for number in task.program.parameters())
        72
    """

    module: nn.Module | None = dataclasses.field(
        default=None, compare=False, repr=False, metadata={"saved": False}
    )
    reads: tuple[str, ...] = ()
    of: str = ""

    def __post_init__(self) -> None:
        reads: object = self.reads
        object.__setattr__(self, "reads", (reads,) if isinstance(reads, str) else tuple(self.reads))
        given: object = self.module
        if given is None:
            return
        if not isinstance(given, nn.Module):
            raise ProgramError(
                f"{self.label} takes a module, not {given!r:.60}",
                ["gp.Parametric(nn.Linear(16, 16), at=...): an instance, not a class or function"],
            )
        object.__setattr__(self, "of", class_name(given))

    def build(self, context: BuildContext) -> nn.Module:
        """Copy the module.

        Raises:
            ProgramError: there is none, or it holds numbers that are not finite.
        """
        if self.module is None:
            raise ProgramError(
                f"{context.where}: the module of {self.label} ({self.of}) is not in the file",
                [f'gp.load(path, graph, modules={{"{self.label}": {self.of}(...)}})'],
            )
        check_finite(self.module, context.where)
        return copy.deepcopy(self.module)


def class_name(module: nn.Module) -> str:
    """Qualified name of a module's class."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def check_finite(module: nn.Module, where: str) -> None:
    """Check the numbers of a module.

    Raises:
        ProgramError: some are NaN or infinite where parameters are; names the parameter.
    """
    for name, tensor in module.named_parameters():
        if not bool(tensor.isfinite().all()):
            raise ProgramError(
                f"{where}: {type(module).__name__}.{name} has values that are not finite",
                ["initialize the module before it is given"],
            )
