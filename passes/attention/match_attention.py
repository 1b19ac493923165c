"""Rewriting of attention written as single operations into one operation."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable

import torch
from torch import fx

from graphprog.analysis.aliases import with_structure
from graphprog.analysis.attention import ATTENTION
from graphprog.errors import InterfaceError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.ops import schema_name
from graphprog.ir.printing import module_path, operator_name
from graphprog.ir.symbols import in_letters
from graphprog.ir.weights import Weights
from graphprog.passes.attention.mask import MaskBuilder, mask_of
from graphprog.passes.attention.pattern import Pattern, pattern_at, softmaxes
from graphprog.passes.attention.score_chain import StoppedError, alike
from graphprog.passes.base import Pass
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.refusal import RefusalError
from graphprog.spec.registry import spec

_OPS = torch.ops.aten


@spec("match-attention")
@dataclasses.dataclass(frozen=True)
class MatchAttention(Pass):
    """Replace softmax(q k^T * scale + masks) v by ``scaled_dot_product_attention``.

    Matching uses operations alone. Results are equal up to rounding, with the same shape and dtype;
    if all keys of a query are masked by -inf, the model may return NaN where this does not.
    Interfaces of scores and weights are removed, and ``attention[k]`` names the results. What does
    not match stays unchanged; :func:`explain` says why.

    Example:
        >>> matched = gp.passes.MatchAttention()(language)  # here it is fused already
        >>> assert torch.equal(matched(ids), language(ids))
    """

    def run(self, graph: Graph) -> Graph:
        """Rewrite every match."""
        edit = Editor(graph, str(self))
        found = matches(edit.code, graph.weights)
        if not found:
            return graph
        known: dict[str, fx.Node] = {}
        for softmax in [pattern.softmax for pattern in found]:
            # matched again, because its operands may have been rewritten
            _rewrite(edit, pattern_at(softmax, graph.weights), known)
        edit.erase_dead()
        return _named(edit.finish())


def matched(graph: Graph) -> Graph:
    """Return a graph in which attention is one operation; the graph itself without a match."""
    return MatchAttention()(graph) if matches(graph.code, graph.weights) else graph


def attending(graph: Graph, places: Iterable[str]) -> Graph:
    """Return a graph in which attention is one operation at some places.

    Raises:
        InterfaceError: there is no attention at one of them; says where matching stopped.
    """
    found = matched(graph)
    for place in places:
        try:
            found.interfaces().resolve_all(place)
        except InterfaceError as error:
            if not (partial := explain(found)):
                raise
            what = "\n".join([error.what, "Attention written as single operations:", *partial])
            raise InterfaceError(what, error.remedies) from error
    return found


def matches(code: fx.Graph, weights: Weights) -> list[Pattern]:
    """Return the attention that :class:`MatchAttention` rewrites, in the order of its results."""
    found: list[Pattern] = []
    for softmax in softmaxes(code):
        with contextlib.suppress(StoppedError):  # which :func:`explain` reports
            found.append(pattern_at(softmax, weights))
    return sorted(found, key=lambda pattern: pattern.result)


def explain(graph: Graph) -> list[str]:
    """Report, for every softmax of a graph, how far matching came and where it stopped.

    Returns:
        One text per softmax, in order: the operations from softmax back to the product of queries
        and keys and on to the values, and the operation, module and source line of the first that
        does not fit. One that :class:`MatchAttention` rewrites is reported as attention.
    """
    texts: list[str] = []
    for softmax in softmaxes(graph.code):
        path = module_path(softmax)
        place = f"softmax in module {path!r}" if path else "softmax"
        try:
            pattern_at(softmax, graph.weights)
        except StoppedError as stopped:
            found = ", ".join(map(operator_name, stopped.found))
            reason = in_letters(stopped.text, graph.symbols)
            texts.append(f"{place}: found {found or 'nothing'}; then {reason}")
        else:
            texts.append(f"{place}: is attention")
    return texts


def _rewrite(edit: Editor, pattern: Pattern, known: dict[str, fx.Node]) -> None:
    """Replace the product of weights and values by one operation."""
    old = pattern.result
    writer = MaskBuilder(edit, old, known)
    source = pattern.transposed.args[0] if _swaps(pattern.transposed) else None
    if not isinstance(source, fx.Node):
        source = writer.put(_OPS.transpose.int, pattern.transposed, -2, -1)
    parts = (pattern.query, source, pattern.value)
    read = [writer.unfolded(node, pattern.folding) for node in parts]
    query, key, value = (writer.cast(node, pattern.dtype) for node in read)
    mask, scale = mask_of(writer, pattern, key)
    new = writer.put(ATTENTION, query, key, value, mask, 0.0, False, scale=scale)
    new = writer.cast(new, fake_tensor(old).dtype)
    if pattern.folding is not None:
        new = writer.put(_OPS.flatten.using_ints, new, 0, 1)
    if not all(map(alike, fake_tensor(new).shape, fake_tensor(old).shape)):
        raise RefusalError(old, f"attention gives {tuple(fake_tensor(new).shape)}")
    edit.substitute(old, new, fused=True)


def _swaps(node: fx.Node) -> bool:
    """Whether a node only swaps the last two dimensions of its operand."""
    name, ndim = schema_name(node), fake_tensor(node).ndim
    if name == "aten::transpose":
        return {int(dim) % ndim for dim in node.args[1:]} == {ndim - 2, ndim - 1}  # type: ignore[arg-type]
    if name == "aten::permute":
        order = [int(dim) % ndim for dim in node.args[1]]  # type: ignore[union-attr, arg-type]
        return order == [*range(ndim - 2), ndim - 1, ndim - 2]
    return name == "aten::mT"


def _named(graph: Graph) -> Graph:
    """Name the results of the new operations; all other names stay."""
    named = with_structure(graph)
    new = {alias: key for alias, key in named.aliases.items() if _is_attention(alias)}
    aliases = {alias: key for alias, key in graph.aliases.items() if not _is_attention(alias)}
    choices = {alias: keys for alias, keys in graph.choices.items() if not _is_attention(alias)}
    choices |= {alias: keys for alias, keys in named.choices.items() if _is_attention(alias)}
    sites = dict(graph.sites) | {key: named.sites[key] for key in new.values()}
    return dataclasses.replace(graph, sites=sites, aliases=aliases | new, choices=choices)


def _is_attention(alias: str) -> bool:
    return alias.rpartition(".")[2].partition("[")[0] in ("attention", "cross_attention")
