"""Adapter methods: small networks added to a frozen model."""

from __future__ import annotations

from graphprog.manipulations.modules.adapter import Adapter
from graphprog.manipulations.prompts.adaption_prompt import AdaptionPrompt


def houlsby(attention: str, feed_forward: str, reduction: float = 16) -> tuple[Adapter, ...]:
    """Adapters of Houlsby et al., ICML 2019: after attention and after feed-forward, with SiLU.

    Args:
        attention: output of the attention blocks, before it is added to the residual stream:
            ``layers.*.attention:out``.
        feed_forward: likewise, output of the feed-forward blocks.
        reduction: ratio of the width to that of the bottleneck.

    Example:
        >>> parts = gp.methods.houlsby("layers.*.out:out", "layers.*.mlp:out", reduction=4)
        >>> task = gp.compile(language, gp.Program(parts))
        >>> len(parts)
        2
    """
    places = {"attention_adapter": attention, "feed_forward_adapter": feed_forward}
    return tuple(
        Adapter(at=at, name=name, reduction=reduction, activation="silu")
        for name, at in places.items()
    )


def pfeiffer(feed_forward: str, reduction: float = 16) -> tuple[Adapter, ...]:
    """Adapters of Pfeiffer et al., EACL 2021: after feed-forward only, with ReLU.

    Args:
        feed_forward: output of the feed-forward blocks: ``layers.*.mlp:out``.
        reduction: ratio of the width to that of the bottleneck.

    Example:
        >>> parts = gp.methods.pfeiffer("layers.*.mlp:out", reduction=4)
        >>> task = gp.compile(language, gp.Program(parts))
    """
    return (Adapter(at=feed_forward, reduction=reduction),)


def parallel_adapter(
    feed_forward: str, beside: str, reduction: float = 2, scale: float = 4.0
) -> tuple[Adapter, ...]:
    """Scaled parallel adapters of He et al., ICLR 2022: beside feed-forward, with ReLU.

    Args:
        feed_forward: output of the feed-forward blocks: ``layers.*.mlp:out``.
        beside: input of the feed-forward blocks: ``layers.*.mlp:in``.
        reduction: ratio of the width to that of the bottleneck.
        scale: factor of the output of the bottleneck.

    Example:
        >>> parts = gp.methods.parallel_adapter("layers.*.mlp:out", "layers.*.mlp:in")
        >>> task = gp.compile(language, gp.Program(parts))
    """
    return (Adapter(at=feed_forward, beside=beside, reduction=reduction, scale=scale),)


def llama_adapter(
    attended: str,
    queries: str,
    keys: tuple[str, ...],
    values: tuple[str, ...],
    heads: int,
    rotary: tuple[str, ...] = (),
    length: int = 10,
) -> tuple[AdaptionPrompt, ...]:
    """LLaMA-Adapter of Zhang et al., ICLR 2024: attention to a prompt, through a gate from zero.

    The gate is the tanh of a number, one per head, as in the authors' code. The paper applies it to
    the topmost layers. See :class:`graphprog.AdaptionPrompt` for other
    layouts of the projections, and an example.

    Args:
        attended: input of the output projections: ``layers.*.self_attn.o_proj:in``.
        queries: output of the query projections.
        keys: ``source.<path>`` of the key projections' weights, and of their biases if any.
        values: likewise for the value projections.
        heads: number of query heads.
        rotary: interfaces of cosine and sine of the rotary embedding.
        length: number of entries per prompt.

    Example:
        >>> keys, values = (("source.layers.*.k.weight",), ("source.layers.*.v.weight",))
        >>> at, queries = "layers.*.out:in", "layers.*.q:out"
        >>> parts = gp.methods.llama_adapter(at, queries, keys, values, heads=2)
        >>> task = gp.compile(language, gp.Program(parts))
    """
    return (
        AdaptionPrompt(
            at=attended,
            queries=queries,
            keys=keys,
            values=values,
            heads=heads,
            rotary=rotary,
            length=length,
            gates="each",
            squash="tanh",
        ),
    )
