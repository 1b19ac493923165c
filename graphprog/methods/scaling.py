"""Methods that scale what a frozen model computes."""

from __future__ import annotations

from graphprog.manipulations.modules.scale import Scale


def ia3(keys: str, values: str, feed_forward: str) -> tuple[Scale, ...]:
    """(IA)³ of Liu et al., NeurIPS 2022: keys, values and inner activations, each times a vector.

    Parameters: in every layer, the widths of the keys, the values and the inner activations.

    Args:
        keys: what the key projections give: ``layers.*.attention.k_proj:out``. Where one layer
            projects queries, keys and values, its output, as PEFT does it; then leave ``values``
            empty.
        values: what the value projections give.
        feed_forward: what the second linear layers of the feed-forward blocks read:
            ``layers.*.mlp.down_proj:in``.

    Example:
        >>> parts = gp.methods.ia3("layers.*.k:out", "layers.*.v:out", "layers.*.mlp.2:in")
        >>> task = gp.compile(language, gp.Program(parts))
    """
    places = {"keys": keys, "values": values, "feed_forward": feed_forward}
    return tuple(Scale(at=at, name=name) for name, at in places.items() if at)


def graph_prompt(at: str) -> tuple[Scale, ...]:
    """GraphPrompt of Liu et al., WWW 2023: node vectors times a vector, in front of the readout.

    The paper compares pooled vectors with class prototypes by cosine.

    Args:
        at: what the readout reads, [nodes, d].

    Example:
        >>> parts = gp.methods.graph_prompt(at="features")  # of a graph network: before its readout
        >>> task = gp.compile(graph, gp.Program(parts))
    """
    return (Scale(at=at, name="graph_prompt"),)
