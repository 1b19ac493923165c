"""Methods for graph neural networks."""

from __future__ import annotations

import math

from graphprog.manipulations.modules.additive import Additive
from graphprog.manipulations.modules.mixture import Mixture
from graphprog.values.base import Learnable


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


def gpf_plus(count: int = 5, at: str = "input") -> tuple[Mixture, ...]:
    """GPF-plus of Fang et al., NeurIPS 2023: every node adds its own mixture of ``count`` vectors.

    Example:
        >>> parts = gp.methods.gpf_plus(count=5, at="features")  # of a graph network: at="input:x"
        >>> task = gp.compile(graph, gp.Program(parts))
    """
    return (Mixture(at=at, name="gpf_plus", count=count),)
