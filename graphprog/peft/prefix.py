"""Prefix tuning of PEFT, with keys and values of all layers in one tensor."""

from __future__ import annotations

from typing import Any

import torch

from graphprog.analysis.attention import Attention
from graphprog.errors import FileError, ProgramError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.manipulations.prompts.prefix import Prefix
from graphprog.passes.attention.match_attention import matched
from graphprog.peft.folder import Folder, Part
from graphprog.values.base import Learnable

_SELF, _DECODER = "attention[*]", "decoder.attention[*]"


def reached(graph: Graph) -> str:
    """The attention operations that PEFT prefixes: those of the decoder if there are two towers."""
    return _DECODER if "decoder.attention[0]" in graph.aliases else _SELF


def read_prefix(folder: Folder, graph: Graph, at: str) -> Part:
    """Read the prefix of a folder.

    Raises:
        FileError: the tensor does not fit the attention operations of the graph.
        InterfaceError: the graph has no attention.
    """
    length = folder.number("num_virtual_tokens")
    rows = folder.tensor("prompt_embeddings")
    pairs = folder.number("num_layers")
    if rows.ndim != 2 or len(rows) != length or not pairs or rows.shape[1] % (2 * pairs):
        raise FileError(
            f"{folder.name}: prompt_embeddings has shape {tuple(rows.shape)}, which is not that of "
            f"{length} virtual tokens in {pairs} layers"
        )
    graph = matched(graph)
    at = at or reached(graph)
    layers = len(graph.interfaces().resolve_all(at))
    if layers != pairs:
        raise FileError(
            f"{folder.name}: the prefix is for {pairs} layers, but the graph has {layers} "
            f"attention operations at {at}",
            [
                "capture the model that it was trained for",
                f"set at='...' to {pairs} attention operations",
            ],
        )
    order = layer_order(layers, folder.number("num_transformer_submodules", 1))
    blocks = rows.reshape(length, layers, -1)
    prefix = Prefix(at=at, name="prefix", length=length, value=Learnable())
    return Part(prefix, {"rows.value": blocks[:, order].flatten(1)})


def layer_order(layers: int, submodules: int) -> list[int]:
    """The index of the pair of keys and values that PEFT gives to each layer.

    With an encoder and a decoder it repeats all pairs and takes two per layer, of which self
    attention uses the first.
    """
    if submodules == 2:
        return [2 * layer % layers for layer in range(layers)]
    return list(range(layers))


def prefix_fields(
    graph: Graph, spec: Prefix, rows: torch.Tensor, name: str
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Convert a prefix to PEFT's tensor and configuration.

    Raises:
        ProgramError: PEFT cannot represent the prefix; says why.
    """
    graph = matched(graph)
    places = graph.interfaces().resolve_all(spec.at)
    usual = graph.interfaces().resolve_all(reached(graph))
    if [place.key for place in places] != [place.key for place in usual]:
        raise ProgramError(
            f"PEFT puts a prefix at {reached(graph)}, but {name!r} is at {spec.at}",
            [f"use gp.Prefix(at={reached(graph)!r})"],
        )
    if spec.positions != "shift":
        raise ProgramError(
            f"PEFT shifts positions by the prefix, but {name!r} keeps positions",
            ["set positions='shift'"],
        )
    layers = len(places)
    both = reached(graph) == _DECODER
    blocks = rows.reshape(len(rows), layers, -1)
    order = layer_order(layers, 2 if both else 1)
    laid = torch.zeros_like(blocks)
    laid[:, order] = blocks
    if not torch.equal(laid[:, order], blocks):
        raise ProgramError(
            f"PEFT gives layers {order.index(order[0])} and {order[1:].index(order[0]) + 1} of a "
            f"decoder the same keys and values, but those of {name!r} differ"
        )
    width = rows.shape[1] // (2 * layers)
    key = fake_tensor(Attention(graph.nodes[places[0].node]).key)
    return laid.flatten(1), {
        "num_virtual_tokens": len(rows),
        "token_dim": width,
        "num_attention_heads": width // int(key.shape[-1]),
        "num_layers": layers,
        "num_transformer_submodules": 2 if both else 1,
        "encoder_hidden_size": width,
        "prefix_projection": False,
    }
