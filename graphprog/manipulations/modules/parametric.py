"""The parametric operator: any module of your own."""

from __future__ import annotations

import copy
import dataclasses

from torch import nn

from graphprog.errors import ProgramError
from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext


@spec("parametric")
@dataclasses.dataclass(frozen=True)
class Parametric(SelectiveManipulation):
    """Apply a module of your own at an interface: ``gp.Parametric(module, at="hidden[2]")``.

    The module takes the value at the interface, then the inputs that ``reads`` names, and returns a
    value of the same shape and dtype; it may return a second tensor, which other parts then read as
    ``program.<name>``. It is copied, so every match of a wildcard trains its own parameters from
    the same initial values. It is traced in eval mode: batch norm still uses batch statistics in
    training, but dropout is off.

    No code is saved, only the name of the class, a hash of its operations, and the tensors. Give
    the module again when loading: ``gp.load(path, graph, modules={"parametric": module})``. A class
    derived from :class:`Manipulation` and registered by :func:`graphprog.spec.spec` does not need
    this, since it makes its module from its own fields.

    Attributes:
        module: the module, which is not saved.
        reads: further inputs; see :attr:`Manipulation.reads`.
        of: qualified name of the module's class; set automatically.

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
                ["give an instance, not a class or function: gp.Parametric(nn.Linear(16, 16))"],
            )
        object.__setattr__(self, "of", class_name(given))

    def build(self, context: BuildContext) -> nn.Module:
        """Copy the module.

        Raises:
            ProgramError: there is none, or a parameter is not finite.
        """
        if self.module is None:
            raise ProgramError(
                f"{context.where}: the module of {self.label} ({self.of}) is not saved in the file",
                [f'call gp.load(path, graph, modules={{"{self.label}": {self.of}(...)}})'],
            )
        check_finite(self.module, context.where)
        return copy.deepcopy(self.module)


def class_name(module: nn.Module) -> str:
    """Qualified name of a module's class."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def check_finite(module: nn.Module, where: str) -> None:
    """Check that the parameters of a module are finite.

    Raises:
        ProgramError: a parameter is NaN or infinite; names it.
    """
    for name, tensor in module.named_parameters():
        if not bool(tensor.isfinite().all()):
            raise ProgramError(
                f"{where}: {type(module).__name__}.{name} has values that are not finite",
                ["initialize the module first"],
            )
