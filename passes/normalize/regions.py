"""Inlining of regions: code that torch.export wraps, such as no-grad blocks."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphprog.errors import CaptureError
from graphprog.ir.graph import Graph
from graphprog.ir.printing import module_path
from graphprog.passes.base import Pass
from graphprog.rewriting.editor import Editor
from graphprog.spec.registry import spec

_REGIONS = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}
"""Wrappers that do not change the values of their body, and the position of the body."""


@spec("inline-regions")
@dataclasses.dataclass(frozen=True)
class InlineRegions(Pass):
    """Replace calls of no-grad and disabled-autocast regions by their bodies.

    Bodies compute the same values outside their region; gradients may then flow through what
    was a no-grad region, which adds zero where the region holds constants of the position only.

    Example:
        >>> flat = gp.passes.InlineRegions()(graph)  # a captured graph is flat
        >>> assert torch.equal(flat(images), graph(images))
    """

    def run(self, graph: Graph) -> Graph:
        """Inline every region, innermost last."""
        edit = Editor(graph, str(self))
        while regions := [node for node in edit.code.nodes if _is_region(node)]:
            for node in regions:
                first = _REGIONS[node.target.__name__]
                if first == 4 and node.args[2] is True:
                    raise CaptureError(
                        "the model computes under autocast, which a graph cannot hold exactly",
                        ["capture a model without torch.autocast in forward"],
                    )
                _inline_region(edit, node, first)
        return edit.finish()


def _is_region(node: fx.Node) -> bool:
    """Whether a node calls a region; of other bodies of code, such as branches, it refuses."""
    if not isinstance(node.target, torch._ops.HigherOrderOperator):
        return False
    if node.target.__name__ not in _REGIONS:
        raise CaptureError(
            f"the model has control flow in its graph: {node.target} (module "
            f"{module_path(node)!r})",
            ["compute both branches, and select with torch.where"],
        )
    return True


def _inline_region(edit: Editor, node: fx.Node, first: int) -> None:
    """Replace the call of a region by its body.

    Args:
        edit: the graph being edited.
        node: the call; its arguments are flags, the body, and the body's inputs.
        first: position of the body among the arguments.
    """
    holder = node.args[first]
    assert isinstance(holder, fx.Node)
    body: fx.GraphModule = holder.meta["region"]
    inputs = iter(node.args[first + 1 :])
    mapping: dict[fx.Node, Any] = {}
    for old in body.graph.nodes:
        if old.op == "placeholder":
            mapping[old] = next(inputs)
        elif old.op != "output":
            with edit.code.inserting_before(node):
                mapping[old] = edit.code.node_copy(old, lambda inner: mapping[inner])
            if old.op == "get_attr":
                enter_region(body, mapping[old], str(holder.target))
    results = pytree.tree_map_only(fx.Node, mapping.get, body.graph.output_node().args[0])
    if isinstance(results, fx.Node):
        node.replace_all_uses_with(results)
    else:
        for user in list(node.users):
            user.replace_all_uses_with(results[user.args[1]])
            edit.code.erase_node(user)
    edit.code.erase_node(node)


def enter_region(owner: nn.Module, node: fx.Node, path: str) -> None:
    """Put ``path`` before what a node reads from ``owner``; keep a body on its node."""
    value = operator.attrgetter(str(node.target))(owner)
    if isinstance(value, fx.GraphModule):
        node.meta["region"] = value
    node.target = f"{path}.{node.target}"
