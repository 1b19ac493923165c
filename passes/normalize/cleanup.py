"""Cleanup passes for operations that torch.export leaves in a graph."""

from __future__ import annotations

import dataclasses

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.ops import schema_name
from graphprog.passes.base import Pass
from graphprog.rewriting.editor import Editor
from graphprog.spec.registry import spec

_ASSERTS = {
    "aten::_assert_tensor_metadata",
    "aten::_assert_scalar",
    "aten::_assert_async",
    "aten::sym_constrain_range",
    "aten::sym_constrain_range_for_size",
}


@spec("drop-asserts")
@dataclasses.dataclass(frozen=True)
class DropAsserts(Pass):
    """Remove run-time checks of sizes, dtypes and devices that tracing recorded.

    Example:
        >>> smaller = gp.passes.DropAsserts()(graph)
        >>> assert torch.equal(smaller(images), graph(images))
    """

    def run(self, graph: Graph) -> Graph:
        """Remove the checks, and operations that only they read."""
        edit = Editor(graph, str(self))
        for node in reversed(edit.code.nodes):
            if schema_name(node) in _ASSERTS:
                edit.code.erase_node(node)
        return edit.finish()


@spec("drop-dropout")
@dataclasses.dataclass(frozen=True)
class DropDropout(Pass):
    """Remove inactive dropout and aliases, which return their argument unchanged.

    Example:
        >>> smaller = gp.passes.DropDropout()(graph)
        >>> assert torch.equal(smaller(images), graph(images))
    """

    def run(self, graph: Graph) -> Graph:
        """Rewire readers of an inactive dropout to its argument."""
        edit = Editor(graph, str(self))
        for node in list(edit.code.nodes):
            name = schema_name(node)
            off = name in ("aten::dropout", "aten::feature_dropout") and node.args[2] is False
            if off or name == "aten::alias":
                edit.bypass(node)
        return edit.finish()


@spec("drop-copies")
@dataclasses.dataclass(frozen=True)
class DropCopies(Pass):
    """Replace copies into a tensor by the copied value, because a copy stops gradients.

    Example:
        >>> smaller = gp.passes.DropCopies()(graph)
        >>> assert torch.equal(smaller(images), graph(images))
    """

    after = ("functionalize",)

    def run(self, graph: Graph) -> Graph:
        """Read the source with dtype and shape of the target."""
        edit = Editor(graph, str(self))
        for node in list(edit.code.nodes):
            if schema_name(node) != "aten::copy":
                continue
            target, source = node.args[:2]
            assert isinstance(target, fx.Node)
            dtype = fake_tensor(target).dtype
            typed = edit.call(torch.ops.aten.to.dtype, (source, dtype), node, "")
            new = edit.call(torch.ops.aten.expand_as.default, (typed, target), node, "")
            for made in (typed, new):
                made.meta = {**node.meta, "val": fake_tensor(made)}
            edit.substitute(node, new)
        return edit.finish()


@spec("drop-dead-code")
@dataclasses.dataclass(frozen=True)
class DropDeadCode(Pass):
    """Remove operations whose results are not used.

    Example:
        >>> smaller = gp.passes.DropDeadCode()(graph)
        >>> assert torch.equal(smaller(images), graph(images))
    """

    def run(self, graph: Graph) -> Graph:
        """Erase them; the graph is functional, so they have no side effects."""
        edit = Editor(graph, str(self))
        edit.erase_dead()
        return edit.finish()


@spec("resolve-taps")
@dataclasses.dataclass(frozen=True)
class ResolveTaps(Pass):
    """Turn tap operations into interfaces and remove them.

    Example:
        >>> resolved = gp.passes.ResolveTaps()(graph)  # a captured graph has no taps left
        >>> assert torch.equal(resolved(images), graph(images))
    """

    after = ("functionalize", "inline-regions")

    def run(self, graph: Graph) -> Graph:
        """Return the edges of an interface: all uses through its tap, and through other taps."""
        edit = Editor(graph, str(self))
        taps = [node for node in edit.code.nodes if schema_name(node) == "graphprog::tap"]
        for tap in taps:
            stack = list((tap.meta.get("nn_module_stack") or {}).values())
            edit.add_site(str(tap.args[1]), tap, str(stack[-1][1]) if stack else "")
        for tap in taps:
            edit.bypass(tap)
        return edit.finish()
