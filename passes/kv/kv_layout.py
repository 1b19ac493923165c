"""Layout of a KV cache: attention operations, their order, and names of keys and values."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import fx

from graphprog.analysis.attention import Attention, attentions, input_ancestors, is_cross
from graphprog.errors import PassError
from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.sizes import expression, is_symbolic, same_size
from graphprog.rewriting.edges import Slot


@dataclasses.dataclass(frozen=True)
class Heads:
    """Keys or values that an attention operation reads, as they come from the sequence.

    Attributes:
        attention: the operation.
        node: the heads [B, H, S, d], without what a prefix put before them.
        edge: the use that reads them.
        repeats: how often each head is repeated.
    """

    attention: Attention
    node: fx.Node
    edge: Slot
    repeats: int

    @classmethod
    def of(cls, attention: Attention, slot: int) -> Heads:
        """Return the keys of an operation, or the values for slot 2."""
        edge, heads = (attention.node, slot), attention.argument(slot)
        while "graphprog" in heads.meta and heads.target is torch.ops.aten.cat.default:
            parts = heads.args[0]
            edge, heads = (heads, len(parts) - 1), parts[-1]
        return cls(attention, heads, edge, attention.repeats)


@dataclasses.dataclass(frozen=True)
class KVLayout:
    """The attention of a graph that is decoded token by token.

    Attributes:
        own: self-attention over the tokens; keys and values of each operation in turn.
        cross: attention over a sequence that does not change between tokens; likewise.
        axis: the number of tokens.
    """

    own: tuple[Heads, ...]
    cross: tuple[Heads, ...]
    axis: torch.SymInt

    @classmethod
    def of(cls, code: fx.Graph) -> KVLayout:
        """Find the attention of a graph; the last operation reads the generated tokens.

        Raises:
            PassError: there is no attention, or the number of tokens is fixed.
        """
        found = _of_inputs(code)
        if not found:
            raise PassError(
                "there is no attention whose keys and values could be kept",
                ["print(graph.interfaces()) shows attention[k] where there is"],
            )
        axis = _written(found)
        if not is_symbolic(axis):
            raise PassError(
                f"the number of tokens is fixed: {axis}",
                ['capture with dynamic_axes={"input_ids": {0: "batch", 1: "sequence"}}'],
            )
        if has_prompt(code):
            raise PassError(
                f"attention is over {axis} tokens, which are not those that are written",
                [
                    "gp.precompute(task) turns a prompt of tokens into a prefix",
                    "gp.generate(task, prompts, use_cache=False)",
                ],
            )
        here = [one for one in found if same_size(fake_tensor(one.query).shape[-2], axis)]
        cross = {one.node for one in here if is_cross(one)}
        heads = [Heads.of(one, slot) for one in here for slot in (1, 2)]
        return cls(
            tuple(one for one in heads if one.attention.node not in cross),
            tuple(one for one in heads if one.attention.node in cross),
            axis,
        )

    def names(self, kind: str) -> list[str]:
        """Return names of inputs or outputs: ``past``, ``present`` or ``cross``, in order."""
        heads = self.cross if kind == "cross" else self.own
        return [f"{kind}_{('key', 'value')[n % 2]}_{n // 2}" for n in range(len(heads))]


def has_prompt(code: fx.Graph) -> bool:
    """Whether the last attention is over more entries than there are tokens: a prompt is there."""
    found = _of_inputs(code)
    axis = _written(found) if found else 0
    return is_symbolic(axis) and not expression(axis).is_Symbol


def _of_inputs(code: fx.Graph) -> list[Attention]:
    return [one for one in attentions(code) if input_ancestors(one.key)]


def _written(found: list[Attention]) -> Any:
    """Return the number of entries of the last attention, which reads the generated tokens."""
    return fake_value(found[-1].query).shape[-2]
