"""Interfaces: the places of a graph where a program can act."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping

import torch

from graphprog.errors import InterfaceError
from graphprog.ir.reading.interface_text import Place, interface_text

KINDS = ("input", "embedding", "hidden", "output")


@dataclasses.dataclass(frozen=True)
class Edge:
    """One use of a value: leaf ``slot`` of the flattened arguments of node ``user``."""

    user: str
    slot: int


@dataclasses.dataclass(frozen=True)
class Interface:
    """A value and the set of its uses that belong to one module boundary.

    Attributes:
        key: serializable name, such as ``input:images`` or ``layers.3:out``.
        kind: one of ``input``, ``embedding``, ``hidden``, ``output``.
        node: name of the graph node that computes the value.
        edges: the uses that a program at this interface replaces; other uses keep the old value.
        shape: sizes; symbolic ones are canonical letters such as ``B``.
        dtype: dtype of the value.
        aliases: other names of this place, such as ``hidden[3]``.
        module: class of the module at whose boundary it is; empty if there is none.

    Example:
        >>> place = graph.interfaces().resolve("hidden[1]")
        >>> place.key, place.shape
        ('blocks.1:out', ('B', 8, 8, 8))
    """

    key: str
    kind: str
    node: str
    edges: tuple[Edge, ...]
    shape: tuple[int | str, ...]
    dtype: torch.dtype
    aliases: tuple[str, ...] = ()
    module: str = ""

    @property
    def type_text(self) -> str:
        """Return dtype and shape, such as ``f32[B,3,224,224]``."""
        return f"{dtype_text(self.dtype)}[{','.join(map(str, self.shape))}]"


_RANGE = re.compile(r"(?P<stem>.+)\[(?P<first>-?\d*):(?P<last>-?\d*)\]")
INSIDE = re.compile(r"(?P<of>.+)\.(?P<part>queries|keys|values|weights|heads\[[^\[\]]+\])")
"""Name of a value inside attention, such as ``attention[3].weights``."""

LAYER = re.compile(
    r"(?P<of>(?:.+\.)?(?P<kind>(?:cross_)?attention|mlp)\[[^\[\]]+\])\."
    r"(?P<part>(?:q|k|v|o|qkv|up|gate|gate_up|down)_proj(?P<end>:(?:in|out|weight|bias))?)"
)
"""Name of a value at an affine layer of attention or feed-forward: ``mlp[3].down_proj:in``."""

_NEGATIVE = re.compile(r"(?P<stem>.+)\[-(?P<index>[1-9]\d*)\]")

_DTYPES = {
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.float32: "f32",
    torch.float64: "f64",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.uint8: "u8",
    torch.bool: "bool",
}


def dtype_text(dtype: torch.dtype) -> str:
    """Return the short name of a dtype: ``f32``, ``i64``, ``bool``."""
    return _DTYPES.get(dtype, str(dtype).removeprefix("torch."))


class InterfaceTable(Mapping[str, Interface]):
    """All interfaces of a graph, by key; prints as a table; resolves aliases and ``[*]``.

    The printed table is folded unless ``verbose``: repeated blocks appear once, and modules without
    an operation, such as dropouts, are left out. The mapping is always complete.
    """

    def __init__(
        self,
        interfaces: Mapping[str, Interface],
        choices: Mapping[str, tuple[str, ...]],
        verbose: bool = False,
    ) -> None:
        self.verbose = verbose
        self._interfaces = dict(interfaces)
        self._by_alias = {
            alias: interface
            for interface in self._interfaces.values()
            for alias in interface.aliases
        }
        self._choices = {alias: names for alias, names in choices.items() if len(names) > 1}
        self._only = {
            alias: self._by_alias[names[0]]
            for alias, names in choices.items()
            if len(names) == 1 and names[0] in self._by_alias
        }

    def __getitem__(self, key: str) -> Interface:
        return self._interfaces[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._interfaces)

    def __len__(self) -> int:
        return len(self._interfaces)

    def resolve(self, name: str) -> Interface:
        """Return the one interface that a key or alias names.

        An alias without its tower is enough if one tower alone has it.

        Raises:
            InterfaceError: the name is unknown (the message suggests the nearest names), ambiguous
                (it lists the choices), or a wildcard.
        """
        if name in self._interfaces:
            return self._interfaces[name]
        if name in self._by_alias:
            return self._by_alias[name]
        if name in self._only:
            return self._only[name]
        if inside := self._inside(name) or self._at_layer(name):
            if len(inside) > 1:
                raise InterfaceError(f"{name!r} names several interfaces, but one is needed")
            return inside[0]
        if (negative := _NEGATIVE.fullmatch(name)) is not None:
            every = self.resolve_all(f"{negative['stem']}[*]")
            if int(negative["index"]) <= len(every):
                return every[-int(negative["index"])]
        if name in self._choices:
            raise self._ambiguous(name, self._choices[name])
        if "*" in name:
            raise InterfaceError(f"{name!r} names several interfaces, but one is needed")
        calls = [key for key in self._interfaces if key.startswith(name + ":")]
        if calls:
            raise InterfaceError(
                f"{name!r} is a module, not an interface", [f"say which: {', '.join(calls[:8])}"]
            )
        raise self._unknown(name)

    def resolve_all(self, name: str) -> tuple[Interface, ...]:
        """Return several interfaces in graph order; otherwise like :meth:`resolve`.

        ``*`` as an index matches all; ``hidden[2:5]`` and ``hidden[:-1]`` are Python ranges.
        """
        if inside := self._inside(name) or self._at_layer(name):
            return inside
        if (range_ := _RANGE.fullmatch(name)) is not None:
            every = self.resolve_all(f"{range_['stem']}[*]")
            first, last = (int(end) if end else None for end in range_.group("first", "last"))
            chosen = every[slice(first, last)]
            if not chosen:
                raise InterfaceError(
                    f"{name!r} is empty: there are {len(every)} places {range_['stem']}[*]"
                )
            return chosen
        if "*" not in name:
            return (self.resolve(name),)
        pattern = re.compile(re.escape(name).replace(r"\*", r"[^:.\[\]]*"))
        found: dict[str, Interface] = {}
        for interface in self._interfaces.values():
            if any(pattern.fullmatch(known) for known in (interface.key, *interface.aliases)):
                found[interface.key] = interface
        if found:
            return tuple(found.values())
        towers = {
            option.removesuffix(alias) + name
            for alias, options in self._choices.items()
            for option in options
            if pattern.fullmatch(alias)
        }
        if towers:
            raise self._ambiguous(name, sorted(towers))
        only = {one.key: one for alias, one in self._only.items() if pattern.fullmatch(alias)}
        if not only:
            raise self._unknown(name)
        return tuple(only.values())

    def _inside(self, name: str) -> tuple[Interface, ...]:
        """Return the interfaces inside attention that a name means; none if it means others.

        Raises:
            InterfaceError: the attention is one operation in this graph, or has no such head.
        """
        match = INSIDE.fullmatch(name)
        if match is None or match["of"] in self._interfaces:
            return ()
        if any(key == name or key.startswith(name + ":") for key in self._interfaces):
            return ()
        keys = (f"{place.key}.{match['part']}" for place in self.resolve_all(match["of"]))
        return tuple(one for key in keys for one in self.resolve_all(key))

    def _at_layer(self, name: str) -> tuple[Interface, ...]:
        """Return the interfaces at layers of attention or feed-forward that a name means.

        Raises:
            InterfaceError: the layer is not an interface of this graph.
        """
        match = LAYER.fullmatch(name)
        if match is None:
            return ()
        part = match["part"] if match["end"] else f"{match['part']}:out"
        found = []
        for place in self.resolve_all(match["of"]):
            names = [f"{alias}.{part}" for alias in place.aliases]
            known = next((one for one in names if one in self._by_alias), None)
            if known is None:
                raise InterfaceError(
                    f"{name!r} is not an interface of this graph",
                    [f'expose it: graph = gp.passes.ExposeLayers(("{name}",))(graph)'],
                )
            found.append(self._by_alias[known])
        return tuple(found)

    def _unknown_inside(self, place: Interface, part: str) -> InterfaceError:
        name = next((one for one in place.aliases if "attention[" in one), place.key)
        heads = sum(key.startswith(f"{place.key}.heads[") for key in self._interfaces)
        if heads and part.startswith("heads"):
            return InterfaceError(
                f"{name!r} has {heads} heads, so there is no {part}",
                [f"count from 0: {name}.heads[0] to {name}.heads[{heads - 1}]"],
            )
        return InterfaceError(
            f"{part} of {name!r} is not an interface of this graph",
            [f'expose it: graph = gp.passes.ExposeAttention(("{name}.{part}",))(graph)'],
        )

    def select(self, pattern: str = "*", verbose: bool = False) -> InterfaceTable:
        """Return the interfaces whose key or alias matches.

        Args:
            pattern: ``*`` matches any text, as in ``blocks.3.*``; or a name or a range as for
                :meth:`resolve_all`.
            verbose: whether to print every interface.

        Raises:
            InterfaceError: there is no such interface; the message suggests the nearest names.
        """
        glob = re.compile(re.escape(pattern).replace(r"\*", ".*"))
        found = [
            interface
            for interface in self._interfaces.values()
            if any(glob.fullmatch(name) for name in (interface.key, *interface.aliases))
        ]
        if not found and self._interfaces:
            found = [*self.resolve_all(pattern)]
        aliases = {alias for interface in found for alias in interface.aliases}
        choices = {alias: names for alias, names in self._choices.items() if aliases & set(names)}
        return InterfaceTable({one.key: one for one in found}, choices, verbose)

    def _ambiguous(self, name: str, options: Iterable[str]) -> InterfaceError:
        return InterfaceError(
            f"interface {name!r} is ambiguous in this graph", [f"say which: {', '.join(options)}"]
        )

    def _unknown(self, name: str) -> InterfaceError:
        inside = INSIDE.fullmatch(name)
        if inside and (place := self._interfaces.get(inside["of"])):
            return self._unknown_inside(place, inside["part"])
        known = [*self._by_alias, *self._only, *self._choices, *self._interfaces]
        near = difflib.get_close_matches(name, known, n=4, cutoff=0.4)
        remedies = [f"nearest names: {', '.join(near)}"] if near else []
        return InterfaceError(
            f"this graph has no interface {name!r}",
            [*remedies, "print(graph.interfaces()) shows all of them"],
        )

    def __str__(self) -> str:
        places = [
            Place(i.key, i.kind, i.type_text, len(i.edges), i.node, i.module, i.aliases)
            for i in self._interfaces.values()
        ]
        return interface_text(places, self._choices, self.verbose)

    __repr__ = __str__
