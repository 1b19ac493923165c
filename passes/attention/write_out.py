"""Attention as products and a softmax, whose weights are a value of the graph."""

from __future__ import annotations

import math

import torch
from torch import fx

from graphprog.analysis.attention import Attention
from graphprog.errors import InterfaceError
from graphprog.ir.fake import fake_tensor
from graphprog.passes.attention.mask import MaskBuilder
from graphprog.rewriting.edges import Slot, leaves_of, uses_for
from graphprog.rewriting.editor import Editor

_OPS = torch.ops.aten
_HIDDEN = float("-inf")
_HALF = (torch.float16, torch.bfloat16)


def write_out(edit: Editor, attention: Attention) -> fx.Node:
    """Compute attention by products and a softmax; returns the weights [B, H, T, S].

    As in the operation, the weights of a query that may read no key are zero, and scores of half
    precision are computed in single precision.

    Raises:
        InterfaceError: the operation drops weights at random.
    """
    node = attention.node
    if attention.argument(4, 0.0):
        raise InterfaceError(
            f"{node.name} drops weights at random, so they are not a value to read",
            ["capture the model in evaluation: model.eval()"],
        )
    query, key, value = (_operand(edit, attention, slot) for slot in range(3))
    writer = MaskBuilder(edit, node, {})
    scores = writer.put(_OPS.matmul.default, query, key)
    mask, masked = attention.mask, _masked(writer, scores, attention)
    weights = writer.cast(_softmax(writer, masked, mask), fake_tensor(node).dtype)
    read = {0: _reading(query, attention.query), 1: _reading(key, attention.key)}
    read[2] = [(node, 1)] if value is attention.value else _reading(value, attention.value)
    if mask is not None:
        read[_mask_slot(attention)] = _reading(masked, mask, scores)
    edit.rewrite(node, _OPS.matmul.default, (weights, value), read)
    return weights


def _operand(edit: Editor, attention: Attention, slot: int) -> fx.Node:
    """Return scaled queries, transposed keys or values, as the products read them."""
    writer = MaskBuilder(edit, attention.node, {})  # of its own: the operands may be one value
    operand: fx.Node = attention.argument(slot)
    heads = fake_tensor(operand)
    if slot and attention.argument(7, False):
        times = fake_tensor(attention.query).shape[-3] // heads.shape[-3]
        if times != 1:
            operand = writer.put(_OPS.repeat_interleave.self_int, operand, int(times), -3)
    if slot == 2:
        return operand
    operand = writer.cast(operand, torch.float32) if heads.dtype in _HALF else operand
    if slot == 1:
        return writer.put(_OPS.transpose.int, operand, -2, -1)
    scale = attention.argument(6)
    scale = 1 / math.sqrt(heads.shape[-1]) if scale is None else scale
    return writer.put(_OPS.mul.Tensor, operand, scale)


def _masked(writer: MaskBuilder, scores: fx.Node, attention: Attention) -> fx.Node:
    mask = attention.mask
    if attention.causal:
        sizes = [writer.put(_OPS.sym_size.int, scores, axis) for axis in (-2, -1)]
        device = fake_tensor(scores).device
        seen = writer.put(_OPS.ones.default, sizes, dtype=torch.bool, device=device)
        mask = writer.put(_OPS.tril.default, seen)
    if mask is None:
        return scores
    if fake_tensor(mask).dtype == torch.bool:
        return writer.put(_OPS.where.ScalarOther, mask, scores, _HIDDEN)
    return writer.put(_OPS.add.Tensor, scores, mask)


def _softmax(writer: MaskBuilder, scores: fx.Node, mask: fx.Node | None) -> fx.Node:
    """Return weights; those of a query are zero if the mask hides all of its keys."""
    if mask is None:
        return writer.put(_OPS.softmax.int, scores, -1)
    blind = writer.put(_OPS.amax.default, scores, [-1], True)
    blind = writer.put(_OPS.eq.Scalar, blind, _HIDDEN)
    finite = writer.put(_OPS.masked_fill.Scalar, scores, blind, 0.0)
    weights = writer.put(_OPS.softmax.int, finite, -1)
    return writer.put(_OPS.masked_fill.Scalar, weights, blind, 0.0)


def _reading(result: fx.Node, value: fx.Node, *given: fx.Node) -> list[Slot]:
    """Return the uses of an operand by what is computed from it."""
    return uses_for(result, value, {value, *given})


def _mask_slot(attention: Attention) -> int:
    leaves = leaves_of(attention.node)
    return leaves.index(attention.mask, 3)
