"""Running code in stages that the backward pass computes again, instead of keeping their values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import fx
from torch.utils.checkpoint import checkpoint

from graphprog.ir.memory.stages import Plan, plan_of

_LOW: ContextVar[list[str] | None] = ContextVar("low", default=None)


@contextmanager
def low_memory(wanted: bool = True) -> Iterator[list[str]]:
    """Let graphs that run with gradients keep few values for the backward pass, in the block.

    Yields:
        A list, to which it is added what is kept, or why all is.
    """
    notes: list[str] = []
    token = _LOW.set(notes if wanted else None)
    try:
        yield notes
    finally:
        _LOW.reset(token)


def saves_memory() -> bool:
    """Whether a graph that runs now is to keep few values."""
    wanted = _LOW.get() is not None
    return wanted and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def tell(note: str) -> None:
    """Add a note to those of the block, if it is new."""
    notes = _LOW.get()
    if notes is not None and note not in notes:
        notes.append(note)


class Staged:
    """Code that runs in stages; random numbers are the same when a stage runs again.

    Args:
        module: the code over its tensors.
        make: makes a module of other code over the same tensors.

    Attributes:
        plan: the stages; None if the code runs as it is.
    """

    def __init__(self, module: fx.GraphModule, make: Callable[[fx.Graph], fx.GraphModule]) -> None:
        trained = {name for name, one in module.named_parameters() if one.requires_grad}
        self.plan: Plan | None = plan_of(module.graph, trained)
        self._module = module
        self._steps = [] if self.plan is None else _steps(module.graph, self.plan, make)

    def __call__(self, *inputs: torch.Tensor) -> tuple[Any, ...]:
        """Run all stages."""
        tell("every value is kept: no cut saves any" if self.plan is None else str(self.plan))
        if not self._steps:
            found: tuple[Any, ...] = self._module(*inputs)
            return found
        names = [node.name for node in self._module.graph.find_nodes(op="placeholder")]
        values: dict[str, Any] = dict(zip(names, inputs, strict=True))
        for number, (stage, read, made, dropped) in enumerate(self._steps):
            given = [values[name] for name in read]
            if number + 1 < len(self._steps):
                results = checkpoint(stage, *given, use_reentrant=False)
            else:
                return tuple(stage(*given))
            values.update(zip(made, results, strict=True))
            for name in dropped:
                del values[name]
        raise AssertionError("the last stage returns")


_Step = tuple[fx.GraphModule, list[str], list[str], list[str]]


def _steps(code: fx.Graph, plan: Plan, make: Callable[[fx.Graph], fx.GraphModule]) -> list[_Step]:
    """Return for each stage its code, what it reads and makes, and what nobody reads later."""
    number = {node: index for index, stage in enumerate(plan.stages) for node in stage}
    output, last = code.output_node(), len(plan.stages) - 1
    number[output] = last
    until: dict[fx.Node, int] = {}
    for node in code.nodes:
        if node.op == "placeholder" or node in number:
            until[node] = max((number.get(user, last) for user in node.users), default=-1)
    steps = []
    for index, stage in enumerate(plan.stages):
        ends: Sequence[fx.Node] = [*stage, output] if index == last else stage
        made = [] if index == last else [node for node in stage if until[node] > index]
        read = _read(ends, number, index)
        ending = [node for node, end in until.items() if end == index]
        dropped = [node.name for node in ending if _known(node, number, index)]
        part = _part(plan, ends, read, made, output if index == last else None)
        steps.append((make(part), [n.name for n in read], [n.name for n in made], dropped))
    return steps


def _known(node: fx.Node, number: dict[fx.Node, int], index: int) -> bool:
    return node.op == "placeholder" or number[node] < index


def _read(ends: Sequence[fx.Node], number: dict[fx.Node, int], index: int) -> list[fx.Node]:
    found: dict[fx.Node, None] = {}
    for node in ends:
        for part in node.all_input_nodes:
            outside = number.get(part, index) < index
            if part.op == "placeholder" or outside:
                found[part] = None
    return list(found)


def _part(
    plan: Plan,
    stage: Sequence[fx.Node],
    read: Sequence[fx.Node],
    made: Sequence[fx.Node],
    output: fx.Node | None,
) -> fx.Graph:
    code, mapping = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in read:
        mapping[node] = code.placeholder(node.name)

    def copy_of_weight(part: fx.Node) -> fx.Node:
        return code.node_copy(part, copy_of_weight)

    for node in stage:
        for part in node.all_input_nodes:
            if part.op == "get_attr" or part in plan.free:  # anew for each: none lives long
                mapping[part] = copy_of_weight(part)
        if node is not output:
            mapping[node] = code.node_copy(node, mapping.__getitem__)
    results: Any = tuple(mapping[node] for node in made)
    if output is not None:
        results = fx.node.map_arg(output.args[0], mapping.__getitem__)
    code.output(tuple(results))
    return code
