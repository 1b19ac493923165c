"""Prefix tuning methods: learned keys and values of attention."""

from __future__ import annotations

from graphprog.manipulations.prompts.prefix import Prefix
from graphprog.methods.prompts import Parts
from graphprog.methods.records import Record, method
from graphprog.values.base import Learnable
from graphprog.values.reparameterized import MLP


@method(
    Record(
        "Li & Liang",
        "ACL 2021",
        "hidden",
        "concatenative",
        "identity",
        "2·L·n·(key heads · head size) when saved",
        "AdamW, learning rate 5e-5, linear decay, 5 epochs, batches of 10",
    )
)
def prefix_tuning(
    tokens: int = 10, hidden: int | None = 512, inputs: int = 512, at: str = "attention[*]"
) -> Parts:
    """Prefix tuning (Li & Liang, ACL 2021): keys and values before those of every layer.

    The paper has prefixes of 1 to 200 tokens, mostly 5 or 10, and a network of width 512 that reads
    vectors of the width of the embedding; pass that width as ``inputs``, because this function does
    not see the model.

    Args:
        tokens: n, number of virtual tokens; 2·L·n·(key heads x head size) parameters when saved.
        hidden: width of the network that computes them during training; None trains them directly.
        inputs: input width of that network.
        at: attention operations, such as ``encoder.attention[*]`` of a model that has several.

    Example:
        >>> parts = gp.methods.prefix_tuning(tokens=4)
        >>> program = gp.Program(parts)
    """
    value = MLP(hidden, inputs=inputs) if hidden else Learnable("normal", 0.02)
    return (Prefix(at=at, length=tokens, value=value, name="prefix"),)


@method(
    Record(
        "Liu et al.",
        "ACL 2022",
        "hidden",
        "concatenative",
        "linear",
        "2·L·n·(key heads · head size), and a head",
        "learning rates and lengths searched per task",
        align="LinearHead(classes)",
    )
)
def p_tuning_v2(tokens: int = 20, hidden: int | None = None, at: str = "attention[*]") -> Parts:
    """P-tuning v2 (Liu et al., ACL 2022): a prefix in every layer, for use with a trained head.

    Args:
        tokens: number of virtual tokens.
        hidden: width of a network that computes them during training; None trains them directly.
        at: attention operations.

    Example:
        >>> parts = gp.methods.p_tuning_v2(tokens=4)
        >>> head = gp.LinearHead(classes=2, at="hidden[1]", pool="last")
        >>> program = gp.Program(parts, align=head)
    """
    return prefix_tuning(tokens, hidden, hidden or 0, at)
