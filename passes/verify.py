"""Verification: named checks that hold after every pass."""

from __future__ import annotations

from collections.abc import Callable

import torch

from graphprog.errors import PassError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.sizes import counts_data, same_for_examples, same_size
from graphprog.rewriting.edges import leaves_of
from graphprog.rewriting.erase import erased
from graphprog.rewriting.fake_execution import kernels_of
from graphprog.rewriting.fake_tracing import fake_mode_of, running


def _structure(graph: Graph, base: Graph) -> None:
    """Check that the code is well formed, and that names and interfaces refer to it."""
    graph.code.lint()
    placeholders = tuple(str(node.target) for node in graph.placeholders)
    assert set(placeholders) <= set(graph.call_spec.inputs), f"inputs {placeholders}"
    for node in graph.code.find_nodes(op="get_attr"):
        holder: object = graph.weights
        for part in str(node.target).split("."):
            assert hasattr(holder, part), f"{node.target} names nothing"
            holder = getattr(holder, part)
    for key, site in graph.sites.items():
        assert site.node in graph.nodes, f"interface {key} lies at a node that is gone"
        for edge in site.edges:
            leaves = leaves_of(graph.nodes[edge.user])
            assert leaves[edge.slot] is graph.nodes[site.node], f"interface {key} has a stale edge"


def _metadata(graph: Graph, base: Graph) -> None:
    """Every value has a fake value, and running the operation again agrees with it."""
    mode = fake_mode_of(fake_tensor(graph.placeholders[0]))
    kernels = kernels_of(mode)
    with running(mode):
        for node in graph.code.nodes:
            if node.op == "output":
                continue
            value = node.meta.get("val")
            assert value is not None, f"{node.name} has no fake value"
            if node.op != "call_function" or not isinstance(value, torch.Tensor):
                continue
            again = kernels.run(node)
            same = again.dtype == value.dtype and _agree(again, value)
            assert same, f"{node.name} is recorded as {value.shape}, but gives {again.shape}"


def _agree(again: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether a shape came out again; what counts data may be known to equal another size."""
    return again.ndim == value.ndim and all(
        same_size(new, old) or counts_data(new) or same_for_examples(new, old)
        for new, old in zip(again.shape, value.shape, strict=True)
    )


def _polymorphism(graph: Graph, base: Graph) -> None:
    """What could vary in the source, the batch above all, still can."""
    environments = {fake_mode_of(fake_tensor(node)).shape_env for node in graph.placeholders}
    for environment in environments:
        assert environment is not None
        for symbol, letter in base.symbols.items():
            fixed = environment.replacements.get(symbol)
            assert fixed is None or not fixed.is_number, f"size {letter} became {fixed}"


def _frozenness(graph: Graph, base: Graph) -> None:
    """Only ``program.*`` can train, and the source's tensors are the very same objects."""
    assert graph.weights.source is base.weights.source, "the source weights were copied"
    for name, parameter in graph.weights.named_parameters():
        frozen = name.startswith("source.")
        assert not (frozen and parameter.requires_grad), f"{name} can train"


def _meaning(graph: Graph, base: Graph) -> None:
    """Without the program, the operations are those of the source, one for one."""
    assert erased(graph).bare_text == base.bare_text, (
        "erasing the program does not give the source back"
    )


CHECKS: dict[str, Callable[[Graph, Graph], None]] = {
    "structure": _structure,
    "metadata": _metadata,
    "polymorphism": _polymorphism,
    "frozenness": _frozenness,
    "meaning": _meaning,
}
"""What :func:`verify` checks, by name."""


def verify(graph: Graph, base: Graph) -> None:
    """Check a rewritten graph against the graph it came from.

    Raises:
        PassError: names the check that failed and what it found.
    """
    for name, check in CHECKS.items():
        try:
            check(graph, base)
        except Exception as error:  # a graph that is broken badly makes the check itself stumble
            raise PassError(
                f"verification of {graph.name} failed, {name}: {error}",
                ["compare the graphs: print(base.diff(graph))"],
            ) from error
