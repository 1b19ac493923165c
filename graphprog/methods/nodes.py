"""Methods for graph neural networks."""

from __future__ import annotations

import math

from graphprog.manipulations.modules.additive import Additive
from graphprog.manipulations.modules.mixture import Mixture
from graphprog.methods.records import Record, method
from graphprog.values.base import Learnable


@method(
    Record(
        "Fang et al.",
        "NeurIPS 2023",
        "input",
        "additive",
        "linear",
        "d",
        "Adam, learning rate 1e-3, 100 epochs, batches of 32",
        align="LinearHead(classes)",
    )
)
def gpf(features: int, at: str = "input") -> tuple[Additive, ...]:
    """Graph prompt feature of Fang et al., NeurIPS 2023: one vector, added to every node.

    Args:
        features: d, width of the node features.
        at: interface of the node features [nodes, d].

    Example:
        >>> parts = gp.methods.gpf(features=8, at="features")  # of a graph network: at="input:x"
        >>> task = gp.compile(graph, gp.Program(parts))
    """
    glorot = math.sqrt(6 / (1 + features))
    value = Learnable("uniform", glorot, (features,))
    return (Additive(at=at, name="gpf", value=value),)


@method(
    Record(
        "Fang et al.",
        "NeurIPS 2023",
        "input",
        "additive",
        "linear",
        "2·k·d + k for k vectors",
        "Adam, learning rate 1e-3, 100 epochs, batches of 32",
        align="LinearHead(classes)",
    )
)
def gpf_plus(count: int = 5, at: str = "input") -> tuple[Mixture, ...]:
    """GPF-plus of Fang et al., NeurIPS 2023: every node adds its own mixture of ``count`` vectors.

    Example:
        >>> parts = gp.methods.gpf_plus(count=5, at="features")  # of a graph network: at="input:x"
        >>> task = gp.compile(graph, gp.Program(parts))
    """
    return (Mixture(at=at, name="gpf_plus", count=count),)
