"""Methods that put small networks beside a frozen model."""

from __future__ import annotations

from graphprog.manipulations.modules.adapter import Adapter
from graphprog.manipulations.prompts.adaption_prompt import AdaptionPrompt


def houlsby(attention: str, feed_forward: str, reduction: float = 16) -> tuple[Adapter, ...]:
    """Adapters of Houlsby et al., ICML 2019: behind attention and behind feed-forward, with SiLU.

    Args:
        attention: what the attention blocks give, before it is added to the residual stream:
            ``layers.*.attention:out``.
        feed_forward: likewise, what the feed-forward blocks give.
        reduction: how much narrower the bottleneck is.

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
    """Adapters of Pfeiffer et al., EACL 2021: behind feed-forward only, with ReLU.

    Args:
        feed_forward: what the feed-forward blocks give: ``layers.*.mlp:out``.
        reduction: how much narrower the bottleneck is.

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
        feed_forward: what the feed-forward blocks give: ``layers.*.mlp:out``.
        beside: what they read: ``layers.*.mlp:in``.
        reduction: how much narrower the bottleneck is.
        scale: factor of what is added.

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
    """LLaMA-Adapter of Zhang et al., ICLR 2024: a prompt in the attention, behind a zero gate.

    The paper has it in the topmost layers. See :class:`graphprog.AdaptionPrompt` for other
    layouts of the projections, and an example.

    Args:
        attended: what the output projections read: ``layers.*.self_attn.o_proj:in``.
        queries: what the query projections give.
        keys: ``source.<path>`` of the key projections' weights, and biases where there are.
        values: likewise for the values.
        heads: of the queries.
        rotary: interfaces of cosine and sine of the rotary embedding.
        length: entries of a prompt.

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
        ),
    )
