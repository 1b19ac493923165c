"""Explicit masks: the causal mask of an attention operation as an operand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from graphprog.analysis.attention import Attention
from graphprog.ir.fake import fake_tensor
from graphprog.rewriting.editor import Editor


def causal_mask(edit: Editor, attention: Attention, sizes: Sequence[fx.Node], part: str) -> fx.Node:
    """Insert a mask [T, S] before an operation, true where a key is not later than the query."""
    ops, reader = torch.ops.aten, attention.node
    kind = {"dtype": torch.bool, "device": fake_tensor(attention.query).device}
    ones = edit.call(ops.ones.default, (list(sizes),), reader, part, kind)
    return edit.call(ops.tril.default, (ones,), reader, part)


def set_mask(attention: Attention, mask: fx.Node) -> None:
    """Make an operation read a mask instead of applying its own."""
    node = attention.node
    args = [attention.argument(position) for position in range(3)]
    node.args = (*args, mask, attention.argument(4, 0.0), False)
    names = ("attn_mask", "dropout_p", "is_causal")
    node.kwargs = {name: value for name, value in node.kwargs.items() if name not in names}
