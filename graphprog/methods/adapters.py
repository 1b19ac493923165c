"""Adapter methods: small networks added to a frozen model."""

from __future__ import annotations

from graphprog.manipulations.modules.adapter import Adapter
from graphprog.manipulations.prompts.adaption_prompt import AdaptionPrompt
from graphprog.methods.records import Record, method


@method(
    Record(
        "Houlsby et al.",
        "ICML 2019",
        "hidden",
        "parametric",
        "linear",
        "Σ 2·d·b + b + d over 2·L adapters of width b",
        "Adam, warm-up of 10 %, linear decay; learning rates 3e-5 to 3e-3, batches of 32 (BERT)",
        align="LinearHead(classes)",
    )
)
def houlsby(
    attention: str = "attention[*].o_proj:out",
    feed_forward: str = "mlp[*]:out",
    reduction: float = 16,
) -> tuple[Adapter, ...]:
    """Adapters of Houlsby et al., ICML 2019: after attention and after feed-forward, with SiLU.

    Args:
        attention: output of the attention blocks, before it is added to the residual stream; of
            one tower of several: ``text.attention[*].o_proj:out``.
        feed_forward: likewise, output of the feed-forward blocks.
        reduction: ratio of the width to that of the bottleneck.

    Example:
        >>> parts = gp.methods.houlsby(reduction=4)
        >>> task = gp.compile(language, gp.Program(parts))
        >>> len(parts)
        2
    """
    places = {"attention_adapter": attention, "feed_forward_adapter": feed_forward}
    return tuple(
        Adapter(at=at, name=name, reduction=reduction, activation="silu")
        for name, at in places.items()
    )


@method(
    Record(
        "Pfeiffer et al.",
        "EACL 2021",
        "hidden",
        "parametric",
        "linear",
        "Σ 2·d·b + b + d over L adapters of width b",
        "AdamW, learning rate 1e-4, linear decay",
        align="LinearHead(classes)",
    )
)
def pfeiffer(feed_forward: str = "mlp[*]:out", reduction: float = 16) -> tuple[Adapter, ...]:
    """Adapters of Pfeiffer et al., EACL 2021: after feed-forward only, with ReLU.

    Args:
        feed_forward: output of the feed-forward blocks.
        reduction: ratio of the width to that of the bottleneck.

    Example:
        >>> parts = gp.methods.pfeiffer(reduction=4)
        >>> task = gp.compile(language, gp.Program(parts))
    """
    return (Adapter(at=feed_forward, reduction=reduction),)


@method(
    Record(
        "He et al.",
        "ICLR 2022",
        "hidden",
        "parametric",
        "identity",
        "Σ 2·d·b + b + d over L adapters of width b",
        "as the task; the scale of 4 is fixed",
    )
)
def parallel_adapter(
    feed_forward: str = "mlp[*]:out",
    beside: str = "mlp[*]:in",
    reduction: float = 2,
    scale: float = 4.0,
) -> tuple[Adapter, ...]:
    """Scaled parallel adapters of He et al., ICLR 2022: beside feed-forward, with ReLU.

    Args:
        feed_forward: output of the feed-forward blocks.
        beside: input of the feed-forward blocks.
        reduction: ratio of the width to that of the bottleneck.
        scale: factor of the output of the bottleneck.

    Example:
        >>> parts = gp.methods.parallel_adapter()
        >>> task = gp.compile(language, gp.Program(parts))
    """
    return (Adapter(at=feed_forward, beside=beside, reduction=reduction, scale=scale),)


@method(
    Record(
        "Zhang et al.",
        "ICLR 2024",
        "hidden",
        "concatenative",
        "identity",
        "L·(n·d + heads)",
        "AdamW, learning rate 9e-3, weight decay 0.02, 5 epochs, warm-up of 2 (LLaMA-7B)",
    )
)
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
