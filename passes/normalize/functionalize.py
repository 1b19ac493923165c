"""Replace operations that write into their input by ones that return a new value."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator

import torch
from torch import fx

from graphprog.errors import CaptureError
from graphprog.ir.graph import Graph
from graphprog.ir.printing import module_path
from graphprog.passes.base import Pass
from graphprog.rewriting.edges import set_leaf, uses_of
from graphprog.rewriting.editor import Editor
from graphprog.spec.registry import spec

_SAME_TENSOR = {"graphprog::tap", "aten::alias", "aten::detach", "aten::detach_"}
_DROPOUTS = {"aten::dropout", "aten::feature_dropout", "aten::alpha_dropout"}


def mutates(node: fx.Node) -> bool:
    """Whether a node writes into one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _may_alias(node: fx.Node) -> bool:
    """Whether the result may share memory with the first argument."""
    if node.target is operator.getitem:  # one of several results, such as those of chunk
        return isinstance(node.args[0], fx.Node) and _may_alias(node.args[0])
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
        "aten::meshgrid",
        "aten::broadcast_tensors",
    )


def functional_form(node: fx.Node) -> torch._ops.OpOverload | None:
    """Return the overload that computes the same without writing: ``relu`` for ``relu_``."""
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


def can_functionalize(code: fx.Graph) -> bool:
    """Whether every write is simple, and none is inside a region."""
    bodies = [
        body
        for body in (getattr(code.owning_module, str(n.target), None) for n in code.nodes)
        if isinstance(body, fx.GraphModule)
    ]
    hidden = any(mutates(node) for body in bodies for node in _all_nodes(body))
    return not hidden and all(_is_simple(node) for node in code.nodes if mutates(node))


def _all_nodes(body: fx.GraphModule) -> Iterator[fx.Node]:
    for module in body.modules():
        if isinstance(module, fx.GraphModule):
            yield from module.graph.nodes


def _is_simple(node: fx.Node) -> bool:
    """Whether a write fills a whole value without views that are read, and keeps its dtype."""
    whole = functional_form(node) is not None and not _views(_root(node.args[0]))
    values = [part.meta.get("val") for part in node.all_input_nodes]
    # x += y keeps the dtype of x, where x + y may widen it
    return whole and len({v.dtype for v in values if isinstance(v, torch.Tensor)}) == 1


def _root(node: object) -> fx.Node:
    """Follow operations that return their argument itself back to its origin."""
    assert isinstance(node, fx.Node)
    while _same(node):
        node = node.args[0]
        assert isinstance(node, fx.Node)
    return node


def _same(node: fx.Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    name = node.target._schema.name
    # dropout that is off returns its argument, not a copy
    return name in _SAME_TENSOR or mutates(node) or (name in _DROPOUTS and node.args[2] is False)


def _family(root: fx.Node) -> list[fx.Node]:
    """Return all nodes whose value is the same tensor as that of ``root``."""
    found = [root]
    for node in found:
        found += [user for user in node.users if _same(user) and user.args[0] is node]
    return found


def _views(root: fx.Node) -> bool:
    """Whether the tensor is a partial view, or a partial view of it is read."""
    if root.op == "call_function" and _may_alias(root):
        return True
    return any(
        _may_alias(user) and not _same(user) and user.args and user.args[0] is member
        for member in _family(root)
        for user in member.users
    )


@spec("functionalize")
@dataclasses.dataclass(frozen=True)
class Functionalize(Pass):
    """Make in-place operations functional, so that a node always has the same value.

    Later readers of any alias of the written tensor are rewired to the new value. Writes through
    views are not handled here: capture functionalizes such models with torch.export's own
    decomposition before this pass.

    Example:
        >>> functional = gp.passes.Functionalize()(graph)  # a captured graph is functional
        >>> assert torch.equal(functional(images), graph(images))
    """

    def requires(self, graph: Graph) -> None:
        """Refuse writes into weights and writes that views could observe."""
        for node in graph.code.nodes:
            if not mutates(node):
                continue
            root = _root(node.args[0])
            if root.op == "get_attr":
                name = str(root.target).removeprefix("source.")
                raise CaptureError(
                    f"the model writes to its own tensor {name} in {node.target}",
                    ["capture it in eval mode", "keep such state outside of forward"],
                )
            if not _is_simple(node):
                raise CaptureError(
                    f"the model writes in place in {node.target} (module {module_path(node)!r}), "
                    "in a way that cannot be made functional",
                    ["write x = x + y instead of x += y there"],
                )

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
                        set_leaf(user, slot, node)
        return edit.finish()
