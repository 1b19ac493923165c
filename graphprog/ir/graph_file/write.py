"""Writing a graph to a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphprog.errors import FileError
from graphprog.ir.call_spec import CallSpec
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph_file.arguments import argument_json, structure_json
from graphprog.ir.graph_file.container import write_container
from graphprog.ir.graph_file.operators import operator_text
from graphprog.ir.graph_file.sizes import size_tree, sizes_document
from graphprog.ir.memory.packed import packed_weights
from graphprog.ir.printing import Printable
from graphprog.ir.records import Insertion, Site
from graphprog.ir.weights import Weights

FORMAT = "graphprog-graph"
VERSION = 1


class Storable(Printable, Protocol):
    """The fields of a graph that are stored; see :class:`graphprog.ir.graph.Graph`."""

    @property
    def weights(self) -> Weights:
        """The tensors."""

    @property
    def call_spec(self) -> CallSpec:
        """Structure of its arguments."""

    @property
    def out_spec(self) -> pytree.TreeSpec:
        """Structure of its results."""

    @property
    def sites(self) -> Mapping[str, Site]:
        """Locations of interfaces."""

    @property
    def aliases(self) -> Mapping[str, str]:
        """Other names of interfaces."""

    @property
    def choices(self) -> Mapping[str, tuple[str, ...]]:
        """Ambiguous aliases."""

    @property
    def insertions(self) -> tuple[Insertion, ...]:
        """Changes made by programs."""

    @property
    def hints(self) -> Mapping[str, Any]:
        """Further facts about the model."""

    @property
    def tokenizer(self) -> Any:
        """Tokenizer of the model, or None."""

    @property
    def bare_text(self) -> str:
        """The text without provenance."""


def write_graph(graph: Storable, path: str | os.PathLike[str]) -> Path:
    """Write a graph and its weights to one file, atomically; see :meth:`Graph.save`."""
    if graph.insertions:
        raise FileError(
            f"{graph.name} has a program in it, and a graph file holds none",
            ["use task.graph.source.save(path), and gp.save(task, path) for the program"],
        )
    if packed_weights(graph.weights.source):
        raise FileError(
            f"{graph.name} has weights in 8 or 4 bits, which a graph file does not hold",
            [
                "save the captured graph; gp.optimize(graph, weights=...) after loading it",
            ],
        )
    tensors, entries = _tensors(graph.weights.source)
    document = {
        "format": {"name": FORMAT, "version": VERSION},
        "torch": torch.__version__,
        "text": text_hash(graph.bare_text),
        "name": graph.name,
        "weights": entries,
        "sizes": _sizes(graph),
        **_call(graph),
        **_code(graph.code),
        **_places(graph),
        "hints": _hints(graph),
    }
    return write_container(path, tensors, document)


def text_hash(text: str) -> str:
    """Return the SHA-256 of a graph's text without provenance, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _tensors(source: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors to store, tied weights once, and how each path reads them."""
    parameters = dict(source.named_parameters(remove_duplicate=False))
    every = {**parameters, **dict(source.named_buffers(remove_duplicate=False))}
    stored: dict[str, torch.Tensor] = {}
    first: dict[int, str] = {}
    entries: dict[str, Any] = {}
    for path, tensor in every.items():
        if type(tensor) not in (torch.Tensor, nn.Parameter):
            raise FileError(
                f"weight {path!r} is a {type(tensor).__name__}, and a file holds plain tensors"
            )
        name = first.setdefault(id(tensor), path)
        dense = tensor.detach().permute(memory_order(tensor.stride()))
        if not dense.is_contiguous():  # neither dense nor a permutation: stored as it reads
            tensor = tensor.detach().contiguous()
            dense = tensor
        stored.setdefault(name, dense)
        entries[path] = {
            "tensor": name,
            "parameter": path in parameters,
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "stride": list(tensor.stride()),
        }
    return stored, entries


def memory_order(strides: Sequence[int]) -> list[int]:
    """Return the dimensions of a dense tensor in memory order."""
    return sorted(range(len(strides)), key=lambda dim: strides[dim], reverse=True)


def _sizes(graph: Storable) -> dict[str, Any]:
    inputs = [fake_tensor(node) for node in graph.code.find_nodes(op="placeholder")]
    environment = inputs[0].fake_mode.shape_env  # type: ignore[attr-defined]
    sizes = [size for value in inputs for size in value.shape]
    return sizes_document(environment, sizes, graph.symbols)


def _call(graph: Storable) -> dict[str, Any]:
    spec = graph.call_spec
    return {
        "call": {
            "structure": structure_json(spec.tree, results=False),
            "names": list(spec.names),
            "constants": [argument_json(value) for value in spec.constants],
        },
        "results": {
            "structure": structure_json(graph.out_spec, results=True),
            "names": list(graph.outputs),
        },
    }


def _code(code: fx.Graph) -> dict[str, Any]:
    stacks: dict[str, int] = {}
    inputs, operations = [], []
    for node in code.nodes:
        if node.op == "placeholder":
            value = fake_tensor(node)
            inputs.append(
                {
                    "node": node.name,
                    "name": str(node.target),
                    "dtype": str(value.dtype).removeprefix("torch."),
                    "device": str(value.device),
                    "shape": [size_tree(size) for size in value.shape],
                }
            )
        elif node.op in ("get_attr", "call_function"):
            operations.append(_operation(node, stacks))
        elif node.op != "output":
            raise FileError(f"{node.name}: a {node.op} cannot be stored")
    returned = [argument_json(item) for item in code.output_node().args[0]]  # type: ignore[union-attr]
    return {
        "inputs": inputs,
        "modules": [_frames(text) for text in stacks],
        "operations": operations,
        "returned": returned,
    }


def _operation(node: fx.Node, stacks: dict[str, int]) -> dict[str, Any]:
    entry: dict[str, Any] = {"node": node.name}
    if node.op == "get_attr":
        entry["weight"] = str(node.target).removeprefix("source.")
        entry["device"] = str(fake_tensor(node).device)
    else:
        entry["operation"] = operator_text(node.target)
        entry["args"] = [argument_json(item) for item in node.args]
        if node.kwargs:
            entry["kwargs"] = {name: argument_json(item) for name, item in node.kwargs.items()}
    if stack := node.meta.get("nn_module_stack"):
        text = "\n".join(f"{path}\t{_class_name(owner)}" for path, owner in stack.values())
        entry["module"] = stacks.setdefault(text, len(stacks))
    if "graphprog" in node.meta:
        entry["part"] = str(node.meta["graphprog"])
    return entry


def _class_name(owner: Any) -> str:
    return f"{owner.__module__}.{owner.__qualname__}" if isinstance(owner, type) else str(owner)


def _frames(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.split("\n")]


def _places(graph: Storable) -> dict[str, Any]:
    return {
        "interfaces": {
            key: {
                "node": site.node,
                "edges": [[edge.user, edge.slot] for edge in site.edges],
                "module": site.module,
            }
            for key, site in graph.sites.items()
        },
        "aliases": dict(graph.aliases),
        "choices": {alias: list(keys) for alias, keys in graph.choices.items()},
    }


def _hints(graph: Storable) -> dict[str, Any]:
    known = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in graph.hints.items()
    }
    reference = getattr(graph.tokenizer, "name_or_path", None)
    return {"tokenizer": str(reference), **known} if reference else known
