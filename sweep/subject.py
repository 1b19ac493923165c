"""A captured family, and what every check needs of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

import graphprog as gp
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import CaptureError, DataError, GraphprogError
from graphprog.ir.graph import Graph
from graphprog.ir.inputs import check_type, inputs_of
from graphprog.utils.numerics import difference
from sweep.family import CAPTURED, UNSEEN, Case
from sweep.outcome import NotApplicableError, RefusedError, WrongError
from tests.support.oracle import values_of

DEFECTS = ("this is a defect", "verification of", " cannot run on a value of shape")
"""What errors of graphprog say that are no refusals: nobody decided them."""

TOLERANCE = 1e-4
"""Largest difference that counts as rounding, as a share of the largest magnitude."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A family's model and its graph.

    Attributes:
        case: the model and its calls.
        graph: what was captured.
        unseen: batch size and length of the checks: others than at capture, as far as they vary.
        note: which axes vary.
    """

    case: Case
    graph: Graph
    unseen: tuple[int, int]
    note: str

    def arguments(self) -> dict[str, Any]:
        """A call at the unseen size."""
        return self.case.call(*self.unseen)

    def source(self, **arguments: Any) -> list[torch.Tensor]:
        """The tensors that the model returns, without gradients."""
        return results(self.case.model, arguments)

    def towers(self, alias: str) -> tuple[str, ...]:
        """The name of a place, or of that place in each tower; none where there is none."""
        if alias in self.graph.aliases:
            return (alias,)
        return tuple(self.graph.choices.get(alias, ()))

    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks' outputs, of all towers."""
        names = (alias for alias in self.graph.aliases if "stages[" not in alias)
        return tuple(alias for alias in names if "hidden[" in alias)

    def compile(self, *parts: Any) -> ReprogrammedModel:
        """Compile a program.

        Raises:
            RefusedError: graphprog refused.
            WrongError: it broke down.
        """
        try:
            return gp.compile(self.graph, gp.Program(parts))
        except GraphprogError as error:
            if any(sign in str(error) for sign in DEFECTS):
                raise WrongError(str(error)) from error
            raise RefusedError(error.what) from error


def hooked(subject: Subject, alias: str) -> str:
    """The key by which hooks know a place.

    Without taps the values that leave a call are numbered as the graph makes them, and a value can
    be one of fewer; so one that looks the same will do.
    """
    interface = subject.graph.interfaces().resolve(alias)
    known = values_of(subject.case.model, (), subject.arguments())
    bare = interface.key.partition("[")[0]
    for name in (interface.key, *sorted(key for key in known if key.partition("[")[0] == bare)):
        if name in known and _looks_like(known[name], interface.shape):
            return name
    raise NotApplicableError(f"hooks do not see {interface.key}")


def _looks_like(value: torch.Tensor, shape: tuple[int | str, ...]) -> bool:
    sizes = zip(value.shape, shape, strict=False)
    return value.ndim == len(shape) and all(isinstance(b, str) or a == b for a, b in sizes)


def captured(case: Case) -> Subject:
    """Capture with as many varying axes as tracing allows.

    Raises:
        CaptureError: of the first attempt, where none succeeds.
    """
    first: CaptureError | None = None
    for axes in case.axes:
        try:
            graph = gp.capture(case.model, (), case.call(*CAPTURED), axes)
        except CaptureError as error:
            first = first or error
            continue
        return Subject(case, graph, *_unseen(case, graph))
    assert first is not None
    raise first


def _unseen(case: Case, graph: Graph) -> tuple[tuple[int, int], str]:
    """The first sizes that the graph takes, of those that differ most from capture's."""
    sizes = {"": UNSEEN, "fixed length": (UNSEEN[0], CAPTURED[1])}
    for note, size in sizes.items():
        values = graph.call_spec.bind((), case.call(*size))
        try:
            for spec, value in zip(inputs_of(graph), values, strict=True):
                check_type(spec, value)
        except DataError:
            continue
        return size, note
    return CAPTURED, "fixed batch"


def results(model: Callable[..., Any], arguments: dict[str, Any]) -> list[torch.Tensor]:
    """What a call returns, without gradients; random numbers are the same each time."""
    torch.manual_seed(0)
    with torch.no_grad():
        return tensors(model(**arguments))


def tensors(result: Any) -> list[torch.Tensor]:
    """The tensors of a result, in order."""
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def compared(expected: list[torch.Tensor], found: list[torch.Tensor], what: str) -> str:
    """A remark on how close two results are; empty where they are equal.

    Raises:
        WrongError: they differ by more than rounding.
    """
    if len(expected) != len(found):
        raise WrongError(f"{what}: {len(found)} outputs for {len(expected)}")
    worst = 0.0
    for right, other in zip(expected, found, strict=True):
        if right.shape != other.shape:
            raise WrongError(f"{what}: shape {tuple(other.shape)} for {tuple(right.shape)}")
        gap = difference(right, other)
        if not gap.within(TOLERANCE):
            raise WrongError(f"{what}: differs by {gap.absolute:.2g}, relative {gap.relative:.2g}")
        worst = max(worst, min(gap.absolute, gap.relative))
    return f"{what}: rounding, {worst:.0e}" if worst else ""


def gradients(
    task: ReprogrammedModel, arguments: dict[str, Any], reaching: bool = True
) -> list[torch.Tensor]:
    """Run with gradients; the outputs, detached.

    Args:
        task: what to run.
        arguments: of the call.
        reaching: whether the gradient of the program must be other than zero.

    Raises:
        WrongError: no gradient reaches the program, or one reaches the source.
    """
    torch.manual_seed(0)
    outputs = tensors(task(**arguments))
    generator = torch.Generator().manual_seed(0)
    loss = sum(
        (out * torch.randn(out.shape, generator=generator, dtype=out.dtype)).sum()
        for out in outputs
        if out.dtype.is_floating_point and out.requires_grad
    )
    if not isinstance(loss, torch.Tensor):
        raise WrongError("no output depends on the program")
    loss.backward()
    for name, parameter in task.named_parameters():
        own = name.startswith("program.")
        if own and reaching and (parameter.grad is None or not parameter.grad.any()):
            raise WrongError(f"no gradient reaches {name}")
        if not own and parameter.grad is not None:
            raise WrongError(f"a gradient reaches {name}")
    return [out.detach() for out in outputs]


def require(condition: object, reason: str) -> None:
    """Leave a check that does not apply."""
    if not condition:
        raise NotApplicableError(reason)
