"""Methods that scale activations of a frozen model."""

from __future__ import annotations

from graphprog.manipulations.modules.scale import Scale
from graphprog.methods.records import Record, method


@method(
    Record(
        "Liu et al.",
        "NeurIPS 2022",
        "hidden",
        "parametric",
        "identity",
        "Σ (d_keys + d_values + d_inner) over layers",
        "Adafactor, learning rate 3e-3, 1000 steps, batches of 8, unlikelihood and length losses",
    )
)
def ia3(
    keys: str = "attention[*].k_proj:out",
    values: str = "attention[*].v_proj:out",
    feed_forward: str = "mlp[*].down_proj:in",
) -> tuple[Scale, ...]:
    """(IA)³ of Liu et al., NeurIPS 2022: scale keys, values and inner activations by vectors.

    Number of parameters per layer: the widths of keys, values and inner activations.

    Args:
        keys: output of the key projections. If one layer projects queries, keys and values, its
            output, ``attention[*].qkv_proj:out``, as in PEFT; then leave ``values`` empty.
        values: output of the value projections.
        feed_forward: input of the second linear layer of the feed-forward blocks.

    Example:
        >>> parts = gp.methods.ia3()
        >>> task = gp.compile(language, gp.Program(parts))
    """
    places = {"keys": keys, "values": values, "feed_forward": feed_forward}
    return tuple(Scale(at=at, name=name) for name, at in places.items() if at)


@method(
    Record(
        "Liu et al.",
        "WWW 2023",
        "hidden",
        "parametric",
        "structural",
        "d",
        "prototypes of classes, compared by cosine similarity",
    )
)
def graph_prompt(at: str) -> tuple[Scale, ...]:
    """GraphPrompt of Liu et al., WWW 2023: scale node vectors before the readout.

    The paper compares pooled vectors with class prototypes by cosine similarity.

    Args:
        at: input of the readout, [nodes, d].

    Example:
        >>> parts = gp.methods.graph_prompt(at="features")  # of a graph network: before its readout
        >>> task = gp.compile(graph, gp.Program(parts))
    """
    return (Scale(at=at, name="graph_prompt"),)
