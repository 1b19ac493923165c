"""Summary of a graph, and of where programs of each kind fit, as one short table."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import fx, nn

from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.interface import Interface, InterfaceTable
from graphprog.ir.memory.packed import packed_weights
from graphprog.ir.printing import Printable, operator_name, value_type
from graphprog.ir.weights import Weights
from graphprog.utils.columns import columns

_CHANNELS_FIRST = ("conv", "batch_norm", "group_norm")
_CHANNELS_LAST = ("linear", "layer_norm", "rms_norm", "addmm")
_STEPS = 50


@dataclasses.dataclass(frozen=True)
class Tower:
    """Repeated blocks that follow each other.

    Attributes:
        name: prefix of its aliases; empty if the graph has one tower.
        blocks: number of blocks.
        values: type of the blocks' outputs, such as ``f32[B,197,192]``; of the first and the last
            block if they differ.
        attention: number of attention operations.
        cross_attention: number of attention operations over another sequence.
    """

    name: str
    blocks: int
    values: tuple[str, ...]
    attention: int
    cross_attention: int

    def __str__(self) -> str:
        parts = [f"{self.blocks} of {' … '.join(self.values)}"] if self.blocks else []
        parts += [f"attention {self.attention}"] if self.attention else []
        parts += [f"cross attention {self.cross_attention}"] if self.cross_attention else []
        return (f"{self.name}: " if self.name else "") + ", ".join(parts)


@dataclasses.dataclass(frozen=True)
class GraphSummary:
    """Summary of a graph; prints as a table.

    Attributes:
        name: name of the model.
        inputs: types by name, such as ``f32[B,3,224,224]``.
        outputs: likewise.
        operations: number of operations.
        interfaces: number of interfaces.
        parameters: number of values in the source model's parameters, each tensor once.
        bytes: size of the parameters in bytes.
        program_parameters: number of values in the program's parameters.
        towers: runs of repeated blocks.
        programs: interfaces by kind of program; empty if there are none. Axes are those that the
            operations allow, without a trial: only compiling a program proves that it fits.
    """

    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    operations: int
    interfaces: int
    parameters: int
    bytes: int
    program_parameters: int
    towers: tuple[Tower, ...]
    programs: Mapping[str, str]

    def __str__(self) -> str:
        program = (
            f" + {self.program_parameters:,} of the program" if self.program_parameters else ""
        )
        rows = [
            *_titled("inputs", (f"{name}: {kind}" for name, kind in self.inputs.items())),
            *_titled("outputs", (f"{name}: {kind}" for name, kind in self.outputs.items())),
            ("parameters", f"{self.parameters:,} in {_size(self.bytes)}{program}"),
            ("operations", f"{self.operations:,}, with {self.interfaces:,} interfaces"),
            *_titled("blocks", map(str, self.towers) if self.towers else ["none found"]),
            ("", ""),
            *((kind, places or "nowhere") for kind, places in self.programs.items()),
        ]
        return "\n".join([self.name, *(f"  {line}".rstrip() for line in columns(rows))])

    __repr__ = __str__


def summary_of(graph: Printable, table: InterfaceTable, weights: Weights) -> GraphSummary:
    """Return the summary of a graph with its interfaces and weights."""
    named = zip(graph.outputs, graph.output_nodes, strict=True)
    packed = set(packed_weights(weights.source).values())
    aliases = {
        alias: place
        for place in table.values()
        for alias in place.aliases
        if "stages[" not in alias  # other names of the same blocks
    }
    return GraphSummary(
        name=graph.name,
        inputs={str(node.target): _type(node, graph) for node in graph.placeholders},
        outputs={name: _type(node, graph) for name, node in named},
        operations=sum(node.op == "call_function" for node in graph.code.nodes),
        interfaces=len(table),
        parameters=_numbers(weights.source) + sum(math.prod(one.shape) for one in packed),
        bytes=sum(one.numel() * one.element_size() for one in weights.source.parameters())
        + sum(one.bytes for one in packed),
        program_parameters=_numbers(weights.program),
        towers=_towers(aliases),
        programs=_programs(graph, table, aliases),
    )


def _type(node: object, graph: Printable) -> str:
    return value_type(fake_value(node), graph) if isinstance(node, fx.Node) else str(node)


def _numbers(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())


def _size(count: int) -> str:
    value, unit = float(count), "bytes"
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def _titled(title: str, lines: Iterable[str]) -> list[tuple[str, str]]:
    return [("" if number else title, line) for number, line in enumerate(lines)]


def _split(alias: str) -> tuple[str, str]:
    """Split an alias into tower and kind: ``vision.hidden[3]`` into ``vision`` and ``hidden``."""
    stem = alias.partition("[")[0] if alias.endswith("]") else alias
    tower, _, name = stem.rpartition(".")
    return tower, name


def _towers(aliases: Mapping[str, Interface]) -> tuple[Tower, ...]:
    found: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for alias, place in aliases.items():
        tower, name = _split(alias)
        if name in ("hidden", "attention", "cross_attention"):
            found[tower][name].append(place.type_text)
    return tuple(
        Tower(
            tower,
            len(values["hidden"]),
            tuple(dict.fromkeys(values["hidden"][:1] + values["hidden"][-1:])),
            len(values["attention"]),
            len(values["cross_attention"]),
        )
        for tower, values in found.items()
    )


def _programs(
    graph: Printable, table: InterfaceTable, aliases: Mapping[str, Interface]
) -> dict[str, str]:
    floats = [place for place in table.values() if place.dtype.is_floating_point]
    kinds = {alias: _split(alias)[1] for alias in aliases}

    def named(name: str) -> list[str]:
        return [_star(alias) for alias, kind in kinds.items() if kind == name]

    attention = named("attention")
    float_aliases = _starry(alias for alias, one in aliases.items() if one in floats)
    return {
        "additive": f"{', '.join(float_aliases)}; {len(floats)} float interfaces" if floats else "",
        "concatenative": _growing(graph, {k: v for k, v in aliases.items() if v in floats}),
        "prefix": ", ".join(f"{name} ({n})" for name, n in Counter(attention).items()),
        "replace tokens": ", ".join(named("tokens")),
        "label mapping": _widths(aliases, "logits"),
        "linear head": _read_by_a_head(aliases),
    }


def _star(alias: str) -> str:
    """``hidden[*]`` for ``hidden[3]``."""
    return re.sub(r"\[\d+\]$", "[*]", alias)


def _starry(aliases: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(map(_star, aliases)))


def _widths(aliases: Mapping[str, Interface], name: str) -> str:
    found = [
        f"{alias} ({place.shape[-1]})"
        for alias, place in aliases.items()
        if _split(alias)[1] == name and place.shape and place.dtype.is_floating_point
    ]
    return ", ".join(found)


def _read_by_a_head(aliases: Mapping[str, Interface]) -> str:
    """Return the features; else the outputs, of a model without a head, or the last block."""
    blocks = [alias for alias in aliases if _split(alias)[1] == "hidden"]
    last = {alias: aliases[alias] for alias in blocks[-1:]}
    return _widths(aliases, "features") or _widths(aliases, "logits") or _widths(last, "hidden")


def _growing(graph: Printable, aliases: Mapping[str, Interface]) -> str:
    """Return axes that may be extended, by alias: all but the batch and the features."""
    nodes = {node.name: node for node in graph.code.nodes}
    found: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    for alias, place in aliases.items():
        rank, name = len(place.shape), _split(alias)[1]
        if rank > 2 and name in ("input", "tokens", "embedding", "hidden"):
            features = _feature_axis(nodes[place.node]) % rank
            found[tuple(axis for axis in range(1, rank) if axis != features)].append(alias)
    return "; ".join(
        f"axis {' or '.join(map(str, axes))} of {', '.join(_starry(names))}"
        for axes, names in found.items()
    )


def _feature_axis(node: fx.Node) -> int:
    """Return the feature axis of the nearest layer with weights; the last axis without one."""
    shape, waiting, seen = list(fake_tensor(node).shape), [node], {node}
    while waiting and len(seen) < _STEPS:
        here = waiting.pop(0)
        for layer in (here, *here.users):
            name = operator_name(layer).partition(".")[0]
            if name.startswith(_CHANNELS_FIRST):
                return 1
            if name in _CHANNELS_LAST:
                return -1
        for near in (*here.users, *here.all_input_nodes):
            value = near.meta.get("val")
            alike = isinstance(value, torch.Tensor) and list(value.shape) == shape
            if alike and near not in seen:
                seen.add(near)
                waiting.append(near)
    return -1
