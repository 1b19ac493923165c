"""Where to cut code so that a backward pass keeps little: minimum cuts on bytes between stages."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprog.ir.ops import schema_name
from graphprog.ir.parts.cut import bytes_of

_COUNTS = (2, 3, 4, 6, 8, 12, 16, 24)
"""Numbers of stages to try."""
_ALIASES = frozenset(
    f"aten::{name}"
    for name in (
        *("view", "_unsafe_view", "reshape", "unflatten", "flatten", "expand", "permute", "alias"),
        *("transpose", "t", "unsqueeze", "squeeze", "select", "slice", "split", "chunk", "detach"),
    )
)
"""Operations whose results take no memory of their own, as a rule."""
_FREE = _ALIASES | {
    f"aten::{name}" for name in ("_to_copy", "mul_", "sub_", "remainder", "div", "cat")
}
"""Operations of which a weight that is read is made: its view, or what computes a packed one."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Stages of code, of which all but the last are computed again in the backward pass.

    Attributes:
        stages: the operations of each, in order.
        kept: bytes of the values between stages, at the sizes of the capture.
        largest: bytes of the values of the largest stage.
        whole: bytes of all values that depend on the program.
        free: operations in no stage, which belong to each that reads them: views of weights, and
            what computes packed ones.
    """

    stages: tuple[tuple[fx.Node, ...], ...]
    kept: int
    largest: int
    whole: int
    free: frozenset[fx.Node] = frozenset()

    def __str__(self) -> str:
        sizes = [f"{size / 1e6:.3g} MB" for size in (self.kept, self.largest, self.whole)]
        return (
            f"{len(self.stages)} stages keep {sizes[0]} between them and {sizes[1]} inside the "
            f"largest, of {sizes[2]}, at the sizes of the capture"
        )


def plan_of(code: fx.Graph, trained: Collection[str]) -> Plan | None:
    """Choose stages so that kept values and the largest stage together take the fewest bytes.

    Args:
        code: the operations.
        trained: paths of the tensors that need gradients.

    Returns:
        The stages; None if no cut saves anything.
    """
    free = _of_weights(code)
    nodes = [node for node in code.nodes if node.op == "call_function" and node not in free]
    learning: set[fx.Node] = set()
    for node in code.nodes:
        own = node.op == "get_attr" and str(node.target) in trained
        if own or any(part in learning for part in node.all_input_nodes):
            learning.add(node)
    saved = [_saved(node) if node in learning else 0 for node in nodes]
    whole, plans = sum(saved), []
    for count in _COUNTS:
        stages = _stages(nodes, saved, count)
        if len(stages) == count:
            plans.append(_plan(code, stages, dict(zip(nodes, saved, strict=True)), whole))
    best = min(plans, key=lambda one: one.kept + one.largest, default=None)
    if best is None or best.kept + best.largest >= whole:
        return None
    return dataclasses.replace(best, free=frozenset(free))


def _is_source(node: fx.Node) -> bool:
    return node.op == "get_attr" and str(node.target).startswith("source.")


def _of_weights(code: fx.Graph) -> set[fx.Node]:
    """Return the operations that make of a weight what is read of it."""
    found: set[fx.Node] = set()
    for node in code.nodes:
        parts = node.all_input_nodes
        own = bool(parts) and all(_is_source(part) or part in found for part in parts)
        cheap = schema_name(node) in _FREE or not isinstance(node.target, torch._ops.OpOverload)
        if node.op == "call_function" and own and cheap:
            found.add(node)
    return found


def _plan(
    code: fx.Graph, stages: Sequence[Sequence[fx.Node]], saved: Mapping[fx.Node, int], whole: int
) -> Plan:
    number = {node: index for index, stage in enumerate(stages) for node in stage}
    last = len(stages)
    kept = sum(
        _size(node)
        for node, own in number.items()
        if any(number.get(user, last) > own for user in node.users)
    )
    largest = max(sum(saved[node] for node in stage) for stage in stages)
    return Plan(tuple(map(tuple, stages)), kept, largest, whole)


def _size(node: fx.Node) -> int:
    values = pytree.tree_leaves(node.meta.get("val"))
    return sum(bytes_of(one) for one in values if isinstance(one, torch.Tensor))


def _saved(node: fx.Node) -> int:
    return 0 if schema_name(node) in _ALIASES else _size(node)


def _stages(nodes: Sequence[fx.Node], saved: Sequence[int], count: int) -> list[list[fx.Node]]:
    """Cut code into a number of stages, each time where the fewest bytes pass."""
    total, sums = sum(saved), list(itertools.accumulate(saved))
    if not total:
        return [list(nodes)]
    half, done = total / count / 2, set[fx.Node]()
    stages: list[list[fx.Node]] = []
    for cut in range(1, count):
        middle = total * cut / count
        start = next(index for index, value in enumerate(sums) if value >= middle - half)
        limit = min(middle + half, total)
        end = next(index for index, value in enumerate(sums) if value >= limit)
        before = done | set(nodes[:start])
        before |= _before(nodes[start:end], before)
        stage = [node for node in nodes if node in before and node not in done]
        if stage:
            stages.append(stage)
        done = before
    rest = [node for node in nodes if node not in done]
    return [*stages, rest] if rest else stages


def _before(window: Sequence[fx.Node], before: Collection[fx.Node]) -> set[fx.Node]:
    """Return the operations of a window to compute before a cut where the fewest bytes pass."""
    import networkx as nx

    flow, inside = nx.DiGraph(), [node for node in window if node not in before]
    own, end = set(inside), "after"
    flow.add_edge("before", end, capacity=0)
    for node in inside:
        flow.add_edge((node, "in"), (node, "out"), capacity=_size(node) + 1)
        for part in node.all_input_nodes:
            if part in own:
                flow.add_edge((part, "out"), (node, "in"))
                flow.add_edge((node, "in"), (part, "in"))  # operands come first
            elif part in before:
                flow.add_edge(("value", part), (node, "in"))
                flow.add_edge("before", ("value", part), capacity=_size(part) + 1)
        if any(user not in own for user in node.users):
            flow.add_edge((node, "out"), end)
    _, (first, _) = nx.minimum_cut(flow, "before", end)
    return {node for node in inside if (node, "in") in first}
