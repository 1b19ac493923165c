"""KV cache: graphs that return keys and values, and that compute only the last tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprog.errors import PassError
from graphprog.ir.call_spec import CallSpec
from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.graph import Graph
from graphprog.ir.ops import values_of
from graphprog.ir.sizes import SLICE_END, expression, has_length, same_size
from graphprog.ir.symbols import with_letters
from graphprog.passes.base import Pass
from graphprog.passes.kv.decode_rewrite import PART, DecodeRewrite
from graphprog.passes.kv.kv_layout import KVLayout
from graphprog.passes.kv.verify_cache import prove
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.refusal import RefusalError
from graphprog.spec.registry import spec


@spec("expose-kv")
@dataclasses.dataclass(frozen=True)
class ExposeKV(Pass):
    """Return keys and values of attention, [B, key heads, S, d], with the results per token.

    ``present_key_0``, ``present_value_0`` and so on are those of the tokens, ``cross_key_0`` and
    so on those of a sequence that does not change between tokens, such as an encoder's result.

    Example:
        >>> exposed = gp.passes.ExposeKV()(language)
        >>> exposed.outputs[:3]
        ('logits', 'present_key_0', 'present_value_0')
    """

    def run(self, graph: Graph) -> Graph:
        """Add the outputs.

        Raises:
            PassError: there is no attention, or the number of tokens is fixed.
        """
        edit = Editor(graph, str(self))
        slots = KVLayout.of(edit.code)
        kept = _written(edit, slots)
        end = edit.code.output_node()
        names = (*slots.names("present"), *slots.names("cross"))
        for name, heads in zip(names, (*slots.own, *slots.cross), strict=True):
            node = heads.node
            if heads.repeats > 1:
                call = (node, 1, 0, SLICE_END, heads.repeats)
                node = edit.call(torch.ops.aten.slice.Tensor, call, end, PART)
            kept[name] = node
        return _finished(edit, kept)


@spec("cache-kv")
@dataclasses.dataclass(frozen=True)
class CacheKV(Pass):
    """Take keys and values of the first P tokens as inputs, and compute the last S - P tokens.

    The other inputs are those of all S tokens, so masks, windows and positions are those that the
    model computes for S tokens; only activations are computed for the last S - P. Inputs
    ``past_key_0``, ``past_value_0``, ... [B, key heads, P, d] and outputs
    ``present_key_0``, ... [B, key heads, S, d] belong to the operations in order; those that attend
    to something else take ``cross_key_0``, ... whole. P may be 0.

    Nothing but attention may read other tokens. This is tried out: random tokens are read in parts,
    and the results are compared with those of reading them at once.

    Example:
        >>> step = gp.passes.CacheKV()(language)
        >>> [str(node.target) for node in step.placeholders][:3]
        ['ids', 'past_key_0', 'past_value_0']
    """

    def run(self, graph: Graph) -> Graph:
        """Derive the graph.

        Raises:
            PassError: an operation reads other tokens in a way that cannot be cached; names
                operation, module and source line.
        """
        edit = Editor(graph, str(self))
        slots = KVLayout.of(edit.code)
        kept = _written(edit, slots)
        try:
            rewrite = DecodeRewrite(edit, slots)
            present = rewrite.run()
        except RefusalError as refusal:
            raise PassError(f"{graph.name} cannot have a KV cache: {refusal}") from refusal
        lengths = {"P": rewrite.skipped, "T": rewrite.kept}
        edit.changes["symbols"] = with_letters(graph.symbols, lengths)
        return _finished(edit, {**kept, **present})

    def ensures(self, before: Graph, after: Graph) -> None:
        """Reading in parts computes what reading at once does; names the operation that does not.

        Raises:
            PassError: a result depends on more than keys and values of other tokens.
        """
        prove(before, ExposeKV()(before), after)


def _written(edit: Editor, slots: KVLayout) -> dict[str, fx.Node]:
    """Return the results that depend on the tokens, by name."""
    reached = {
        node
        for node in edit.code.find_nodes(op="placeholder")
        if has_length(fake_tensor(node), slots.axis)
    }
    for node in edit.code.nodes:
        if _is_tensor(node) and any(part in reached for part in values_of(node)):
            reached.add(node)
    returned = edit.code.output_node().args[0]
    named = zip(edit.graph.outputs, returned, strict=True)  # type: ignore[arg-type]
    return {name: node for name, node in named if isinstance(node, fx.Node) and node in reached}


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor | list | tuple)


def _finished(edit: Editor, outputs: Mapping[str, fx.Node]) -> Graph:
    """Return the graph with these outputs by name, and the inputs that they need."""
    edit.drop_sites([key for key in edit.sites if key.startswith("output:")])
    edit.insertions, edit.modes, edit.parts = [], [], {}
    edit.set_outputs(list(outputs.values()))
    edit.erase_dead()
    for name, node in outputs.items():
        edit.add_site(f"output:{name}", node)
    _drop_inputs(edit)
    inputs = {str(node.target): "" for node in edit.code.find_nodes(op="placeholder")}
    names = tuple(inputs)
    _, tree = pytree.tree_flatten(((), inputs))
    _, returned = pytree.tree_flatten(dict(outputs))
    edit.changes |= {
        "call_spec": CallSpec(tree, names, (None,) * len(names)),
        "out_spec": returned,
        "outputs": tuple(outputs),
    }
    return edit.finish()


def _drop_inputs(edit: Editor) -> None:
    """Remove unused inputs, and inputs used only for a size that another input has."""
    inputs = edit.code.find_nodes(op="placeholder")
    sized = torch.ops.aten.sym_size.int
    unread = [node for node in inputs if all(user.target is sized for user in node.users)]
    read = [node for node in inputs if node not in unread]
    for node in unread:
        for user in list(node.users):
            like = _like(user, read)
            if like is not None:
                user.args = like
        if not node.users:
            edit.drop_sites([key for key, site in edit.sites.items() if site.node is node])
            edit.code.erase_node(node)


def _like(size: fx.Node, inputs: list[fx.Node]) -> tuple[fx.Node, int] | None:
    """Return another input with a size, and its dimension."""
    for node in inputs:
        for dim, found in enumerate(fake_tensor(node).shape):
            if expression(found) == expression(fake_tensor(size)) and same_size(
                found, fake_value(size)
            ):
                return node, dim
    return None
