"""Make one linear layer of several: side by side, or one after the other."""

from __future__ import annotations

import dataclasses

import torch
from torch import fx

from graphprog.ir.dependence.view_rules import takes_all
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.ops import bound, schema_name
from graphprog.passes.base import Pass
from graphprog.passes.optimize.source_edit import SourceEdit, require_source
from graphprog.spec.registry import spec

_LINEAR, _OPERATION = "aten::linear", torch.ops.aten.linear.default


@spec("merge-linears")
@dataclasses.dataclass(frozen=True)
class MergeLinears(Pass):
    """Compute linear layers of one input at once, and multiply fixed heads into the layer before.

    Queries, keys and values of one input become one product. A linear layer, a product with a
    fixed matrix, or a selection of units after a linear layer that nothing else reads is multiplied
    into it, where the product has fewer entries than both. The result equals the source up to
    rounding, and is a source of its own, as after ``gp.optimize``.

    Example:
        >>> merged = gp.passes.MergeLinears()(graph)
        >>> assert torch.allclose(merged(images), graph(images), atol=1e-5)
    """

    def requires(self, graph: Graph) -> None:
        """Refuse a graph that has a program in it."""
        require_source(self.kind, graph)

    def run(self, graph: Graph) -> Graph:
        """Multiply heads in, then merge what reads the same value."""
        merging = _Merging(graph, str(self))
        changed = any([merging.chains(), merging.parallel()])
        return merging.source.finish() if changed else graph


class _Merging:
    """One run of the pass."""

    def __init__(self, graph: Graph, made_by: str) -> None:
        self.source = SourceEdit(graph, made_by, "merged")
        self.edit = self.source.edit

    def chains(self) -> bool:
        """Multiply what follows linear layers into them."""
        changed = False
        for node in list(self.edit.code.nodes):
            before = node.args[0] if node.args else None
            whole = schema_name(node) == "aten::slice" and takes_all(node)
            if whole and isinstance(before, fx.Node) and self._is_linear(before):
                self.edit.bypass(node)
                changed = True
                continue
            if isinstance(before, fx.Node) and self._is_linear(before) and len(before.users) == 1:
                found = self._product(before, node)
                if found is not None:
                    self._write(node, before, *found)
                    changed = True
        return changed

    def _is_linear(self, node: fx.Node) -> bool:
        given = bound(node) if schema_name(node) == _LINEAR else {}
        bias = given.get("bias")
        fixed = bias is None or self.source.is_constant(bias)
        fixed = fixed and self.source.is_constant(given.get("weight"))
        return fixed and fake_tensor(given["weight"]).ndim == 2

    def _product(
        self, before: fx.Node, node: fx.Node
    ) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """Return weight and bias of both operations together, if that is less work."""
        weight, bias = (self.source.value(bound(before)[name]) for name in ("weight", "bias"))
        assert weight is not None
        rows = None if bias is None else bias.double()
        picked = self._picked(before, node, len(weight))
        if picked is not None:
            return weight[picked].double(), None if rows is None else rows[picked]
        matrix, more = self._matrix(node)
        if matrix is None or matrix.shape[1] != len(weight):
            return None
        if len(matrix) * weight.shape[1] > weight.numel() + matrix.numel():
            return None
        total = None if rows is None else matrix @ rows
        if more is not None:
            total = more if total is None else total + more
        return matrix @ weight.double(), total

    def _matrix(self, node: fx.Node) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the matrix [k, m] and the bias of a linear operation."""
        if self._is_linear(node):
            weight, bias = (self.source.value(bound(node)[name]) for name in ("weight", "bias"))
            assert weight is not None
            return weight.double(), None if bias is None else bias.double()
        if schema_name(node) in ("aten::matmul", "aten::mm") and self.source.is_constant(
            node.args[1]
        ):
            found = self.source.value(node.args[1])
            if found is not None and found.ndim == 2:
                return found.double().t(), None
        return None, None

    def _picked(self, before: fx.Node, node: fx.Node, units: int) -> torch.Tensor | None:
        """Return the units that an operation selects of the last axis."""
        last, name, given = fake_tensor(before).ndim - 1, schema_name(node), bound(node)
        if name == "aten::index_select" and given["dim"] % (last + 1) == last:
            return self.source.value(given["index"])
        if name == "aten::slice" and given["dim"] % (last + 1) == last:
            bounds = (given["start"], given["end"], given["step"])
            if all(one is None or isinstance(one, int) for one in bounds):
                return torch.arange(units)[slice(*bounds)]
        if name == "aten::index":
            places = list(given["indices"])
            index = self.source.value(places[-1])
            alone = len(places) == last + 1 and not any(one is not None for one in places[:-1])
            if alone and index is not None and index.ndim == 1 and index.dtype != torch.bool:
                return index
        return None

    def parallel(self) -> bool:
        """Merge linear layers of the same value."""
        groups: dict[fx.Node, list[fx.Node]] = {}
        for node in self.edit.code.nodes:
            if self._is_linear(node) and bound(node)["input"] is node.args[0]:
                groups.setdefault(node.args[0], []).append(node)
        several = [group for group in groups.values() if len(group) > 1]
        for group in several:
            self._merge(group)
        return bool(several)

    def _merge(self, group: list[fx.Node]) -> None:
        weights = [self.source.value(bound(node)["weight"]) for node in group]
        biases = [self.source.value(bound(node)["bias"]) for node in group]
        sizes = [len(weight) for weight in weights if weight is not None]
        first = group[0]
        total = None
        if any(bias is not None for bias in biases):
            pairs = zip(biases, sizes, strict=True)
            total = torch.cat([torch.zeros(n) if b is None else b.double().cpu() for b, n in pairs])
        weight = torch.cat([weight for weight in weights if weight is not None])
        args = self._stored(first, weight, total)
        merged = self.source.call(_OPERATION, (first.args[0], *args), first, first)
        axis, start, parts = fake_tensor(merged).ndim - 1, 0, []
        for node, size in zip(group, sizes, strict=True):
            bounds = (merged, axis, start, start + size)
            parts.append(self.source.call(torch.ops.aten.slice.Tensor, bounds, first, node))
            start += size
        for node, part in zip(group, parts, strict=True):
            self.edit.substitute(node, part)

    def _write(
        self, node: fx.Node, before: fx.Node, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> None:
        args = self._stored(node, weight, bias)
        stale = [key for key, site in self.edit.sites.items() if site.node is before]
        self.edit.drop_sites(stale)
        new = self.source.call(_OPERATION, (before.args[0], *args), node, before)
        self.edit.substitute(node, new, fused=True)
        self.edit.substitute(before, new)  # interfaces at its input are read by the new one

    def _stored(
        self, before: fx.Node, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> list[fx.Node]:
        """Store what a new layer reads, in the dtype of an old one."""
        dtype = fake_tensor(before).dtype
        parts = (("weight", weight), ("bias", bias))
        return [
            self.source.store(value.to(weight.device, dtype).contiguous(), before, name)
            for name, value in parts
            if value is not None
        ]
