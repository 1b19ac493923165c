"""One additive mask that combines all changes of scores in attention of single operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.sizes import same_size
from graphprog.passes.attention.folded_heads import Folding
from graphprog.passes.attention.pattern import Pattern
from graphprog.passes.attention.score_chain import Step
from graphprog.rewriting.editor import Editor

_OPS = torch.ops.aten


class MaskBuilder:
    """Inserts operations before a node; equal operations are one node.

    Args:
        edit: editor of the graph.
        before: the operation whose place and module they take.
        known: operations inserted so far.
    """

    def __init__(self, edit: Editor, before: fx.Node, known: dict[str, fx.Node]) -> None:
        self.edit = edit
        self.before = before
        self.known = known

    def put(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """Return the result of an operation."""
        key = f"{target}{args}{sorted(kwargs.items())}"
        if key not in self.known:
            node = self.edit.call(target, args, self.before, "", kwargs)
            node.meta = {**self.before.meta, "val": fake_tensor(node)}
            self.known[key] = node
        return self.known[key]

    def cast(self, node: fx.Node, dtype: torch.dtype) -> fx.Node:
        """Convert a value to another dtype."""
        return node if fake_tensor(node).dtype == dtype else self.put(_OPS.to.dtype, node, dtype)

    def unfolded(self, node: fx.Node, folding: Folding | None) -> fx.Node:
        """Reshape a value [B * H, ...] to [B, H, ...]."""
        if folding is None:
            return node
        whole = folding.unfolded_by(node)
        if whole is not None and same_size(fake_tensor(whole).shape[1], folding.heads):
            return whole
        return self.put(_OPS.unflatten.int, node, 0, [-1, folding.heads])


def mask_of(writer: MaskBuilder, pattern: Pattern, keys: fx.Node) -> tuple[fx.Node | None, float]:
    """Compute the mask to add to scaled scores, and their scale.

    Every step is applied to the mask instead of the scores, so the result is what the model
    computes for scores of zero.

    Args:
        writer: inserts new operations.
        pattern: the attention.
        keys: [B, H, S, d].
    """
    mask: fx.Node | None = None
    scale = 1.0
    for step in pattern.steps:
        if step.kind == "scale":
            scale *= step.number
            if mask is not None and step.number != 1:
                mask = writer.put(_OPS.mul.Tensor, mask, step.number)
        elif step.kind == "add":
            mask = _added(writer, mask, step, pattern)
        elif step.kind in ("fill", "keep"):
            mask = _filled(writer, mask, step, pattern)
    return (None if mask is None else _fitted(writer, mask, keys)), scale


def _added(writer: MaskBuilder, mask: fx.Node | None, step: Step, pattern: Pattern) -> fx.Node:
    term = writer.cast(_term(writer, step, pattern.folding), pattern.dtype)
    if step.number != 1:
        term = writer.put(_OPS.mul.Tensor, term, step.number)
    return term if mask is None else writer.put(_OPS.add.Tensor, mask, term)


def _filled(writer: MaskBuilder, mask: fx.Node | None, step: Step, pattern: Pattern) -> fx.Node:
    where = _term(writer, step, pattern.folding)
    if mask is None:
        device = fake_tensor(where).device
        mask = writer.put(_OPS.zeros.default, [], dtype=pattern.dtype, device=device)
    if step.kind == "fill":
        return writer.put(_OPS.where.ScalarSelf, where, step.number, mask)
    return writer.put(_OPS.where.ScalarOther, where, mask, step.number)


def _term(writer: MaskBuilder, step: Step, folding: Folding | None) -> fx.Node:
    """Return a bias or mask as it broadcasts to [B, H, T, S]."""
    node = step.operand
    assert node is not None
    value = fake_tensor(node)
    if folding is None or fake_tensor(step.node).ndim == 4 or value.ndim < 3:
        return node
    if same_size(value.shape[0], 1):
        return writer.put(_OPS.unsqueeze.default, node, 0)
    return writer.unfolded(node, folding)


def _fitted(writer: MaskBuilder, mask: fx.Node, keys: fx.Node) -> fx.Node:
    """A mask of four dimensions, with the length of the keys or one column for all."""
    while fake_tensor(mask).ndim < 4:
        mask = writer.put(_OPS.unsqueeze.default, mask, 0)
    own, wanted = fake_tensor(mask).shape[-1], fake_tensor(keys).shape[-2]
    if same_size(own, wanted) or same_size(own, 1):
        return mask
    length = writer.put(_OPS.sym_size.int, keys, 2)
    return writer.put(_OPS.expand.default, mask, [-1, -1, -1, length])
