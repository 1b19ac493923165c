"""Replace operations that write into their input by ones that return a new value."""

from __future__ import annotations

import dataclasses

import torch
from torch import fx

from graphprog.errors import CaptureError
from graphprog.graph import Graph
from graphprog.passes.base import Pass
from graphprog.passes.editor import Editor, uses_of
from graphprog.spec import spec

_SAME_TENSOR = {"graphprog::tap", "aten::alias", "aten::detach", "aten::detach_"}


def mutates(node: fx.Node) -> bool:
    """Whether a node writes into one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _may_alias(node: fx.Node) -> bool:
    """Whether the result may share memory with the first argument."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    returns = node.target._schema.returns
    shares = any(result.alias_info is not None for result in returns)
    # composite operations such as reshape declare no alias but may return a view
    return shares or node.target._schema.name in (
        "aten::reshape",
        "aten::contiguous",
        "aten::flatten",
        "aten::to",
        "aten::expand_as",
    )


def functional_form(node: fx.Node) -> torch._ops.OpOverload | None:
    """The overload that computes the same without writing, such as ``relu`` for ``relu_``."""
    assert isinstance(node.target, torch._ops.OpOverload)
    namespace, name = node.target._schema.name.split("::")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    if not name.endswith("_") or packet is None:
        return None
    overload = node.target._overloadname
    if overload not in packet.overloads():
        return None
    form: torch._ops.OpOverload = getattr(packet, overload)
    return form


def can_functionalise(code: fx.Graph) -> bool:
    """Whether every write goes to a whole value of which no view is read afterwards."""
    return all(
        functional_form(node) is not None and not _views(_root(node.args[0]))
        for node in code.nodes
        if mutates(node)
    )


def _root(node: object) -> fx.Node:
    """Follow operations that return their very argument back to the first maker."""
    assert isinstance(node, fx.Node)
    while _same(node):
        node = node.args[0]
        assert isinstance(node, fx.Node)
    return node


def _same(node: fx.Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    return node.target._schema.name in _SAME_TENSOR or mutates(node)


def _family(root: fx.Node) -> list[fx.Node]:
    """All nodes whose value is the very same tensor as ``root``'s."""
    found = [root]
    for node in found:
        found += [user for user in node.users if _same(user) and user.args[0] is node]
    return found


def _views(root: fx.Node) -> bool:
    """Whether a partial view touches the tensor: as its maker, or as a reader of it."""
    if root.op == "call_function" and _may_alias(root):
        return True
    return any(
        _may_alias(user) and not _same(user) and user.args and user.args[0] is member
        for member in _family(root)
        for user in member.users
    )


@spec("functionalise")
@dataclasses.dataclass(frozen=True)
class Functionalise(Pass):
    """Make in-place operations functional, so that a value means the same wherever it is read.

    Later readers of any name of the written tensor are rewired to the new value. Writes through
    views are not handled here: capture functionalises such models with torch.export's own
    decomposition before this pass.
    """

    def requires(self, graph: Graph) -> None:
        """Refuse writes into weights and writes that views could observe."""
        for node in graph.code.nodes:
            if not mutates(node):
                continue
            root = _root(node.args[0])
            if root.op == "get_attr":
                raise CaptureError(
                    f"the model writes to its own tensor {root.target} in {node.target}",
                    ["capture it in eval mode", "keep such state outside of forward"],
                )
            if functional_form(node) is None or _views(root):
                raise CaptureError(f"{node.target} writes through a view and was not decomposed")

    def run(self, graph: Graph) -> Graph:
        """Rewrite every in-place operation, in program order."""
        edit = Editor(graph, str(self))
        order = {node: position for position, node in enumerate(edit.code.nodes)}
        for node in list(edit.code.nodes):
            if not mutates(node):
                continue
            form = functional_form(node)
            assert form is not None
            family = _family(_root(node.args[0]))
            node.target = form
            for member in family:
                if order[member] >= order[node]:
                    continue
                for user, slot in uses_of(member):
                    if order[user] > order[node]:
                        edit.replace_use(user, slot, node)
        return edit.finish()
