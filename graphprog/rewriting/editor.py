"""The Editor: the only code that mutates an fx graph."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from graphprog.errors import PassError
from graphprog.ir.execution import copy_code
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph, Insertion, Site
from graphprog.ir.interface import Edge
from graphprog.ir.weights import ProgramParts, Weights
from graphprog.rewriting.edges import Slot, leaves_of, set_leaf, uses_for, uses_of
from graphprog.rewriting.fake_tracing import fake_mode_of, running


@dataclasses.dataclass
class _OpenSite:
    """A Site of a graph that is being edited: it holds nodes instead of names."""

    node: fx.Node
    edges: set[Slot]
    module: str


class Editor:
    """Edit a private copy of a graph's code; :meth:`finish` returns the new Graph.

    Fake values of new nodes come from running the operations, never from a rule. Interfaces follow
    replaced values. Weights stay shared.

    Args:
        graph: the graph to start from; it is not changed.
        made_by: text of the pass, kept on every node that it adds.

    Example:
        >>> edit = gp.passes.Editor(graph, "mine")
        >>> value = edit.node(graph.interfaces().resolve("features").node)
        >>> copy = edit.finish()
    """

    def __init__(self, graph: Graph, made_by: str = "") -> None:
        self.graph = graph
        self.made_by = made_by
        self.code, mapping = copy_code(graph.code)
        self._named = {old.name: new for old, new in mapping.items()}
        self._original = set(mapping.values())
        self.sites = {
            key: _OpenSite(
                self._named[site.node],
                {(self._named[edge.user], edge.slot) for edge in site.edges},
                site.module,
            )
            for key, site in graph.sites.items()
        }
        self._lying: defaultdict[fx.Node, set[str]] = defaultdict(set)
        for key, open_site in self.sites.items():
            self._lying[open_site.node].add(key)
        self._rank = {key: number for number, key in enumerate(self.sites)}
        self.insertions = list(graph.insertions)
        self.modes = list(graph.modes)
        self.parts = {part: self._named[name] for part, name in graph.parts.items()}
        self.changes: dict[str, Any] = {}
        self._children: dict[str, nn.Module] = {}

    def node(self, name: str) -> fx.Node:
        """Return the copy of the node with this name in the original graph."""
        return self._named[name]

    def stand_in(self, name: str, node: fx.Node) -> None:
        """Make :meth:`node` return a new node for the name of a removed one."""
        self._named[name] = node

    def alive(self, names: Iterable[str]) -> list[fx.Node]:
        """Return the copies of the named nodes that are still in the code."""
        nodes = set(self.code.nodes)
        names = (names,) if isinstance(names, str) else names
        return [self._named[name] for name in names if self._named.get(name) in nodes]

    def edges(self, edges: Iterable[Edge]) -> set[Slot]:
        """Return the copies of edges of the original graph."""
        return {(self._named[edge.user], edge.slot) for edge in edges}

    def add_module(self, name: str, module: nn.Module) -> None:
        """Register a module under ``program.<name>``.

        Raises:
            PassError: the name is taken.
        """
        program = self.graph.weights.program
        if hasattr(program, name) and name not in dict(program.named_children()):
            raise PassError(
                f"{name!r} cannot be the name of a part: modules have an attribute of that name",
                ["give the part another name"],
            )
        if hasattr(program, name) or name in self._children:
            raise PassError(
                f"the program already has a part named {name!r}",
                ["give one of the two parts another name"],
            )
        self._children[name] = module

    def redirect(
        self, old: fx.Node, edges: set[Slot], new: fx.Node, before: set[Slot], at: str = ""
    ) -> None:
        """R1: make some uses of ``old`` read ``new``; interfaces follow.

        Interfaces with the same uses, such as the output of a block and the input of the next,
        follow one another in the order of the table. Those before ``at`` keep the old value, so
        that the order of the changes does not matter.

        Args:
            old: the value to replace.
            edges: the uses that change.
            new: the value that they read afterwards.
            before: uses of ``old`` by the nodes that compute ``new``.
            at: key of the interface that changes; empty if the value itself changes.
        """
        for user, slot in edges:
            set_leaf(user, slot, new)
        for key in self._at(old):
            site = self.sites[key]
            in_front = bool(at) and self._rank[key] < self._rank.get(at, len(self._rank))
            if site.edges <= edges and not (in_front and site.edges == edges):
                self._move(key, new)
            elif site.edges & edges:
                site.edges = (site.edges - edges) | before

    def _at(self, node: fx.Node) -> list[str]:
        """Return the keys of the interfaces at a node, in the order of the table."""
        return sorted(
            (key for key in self._lying[node] if key in self.sites), key=self._rank.__getitem__
        )

    def _move(self, key: str, node: fx.Node) -> None:
        """Move an interface to another node."""
        site = self.sites[key]
        self._lying[site.node].discard(key)
        self._lying[node].add(key)
        site.node = node

    def add_site(
        self, key: str, node: fx.Node, module: str = "", edges: set[Slot] | None = None
    ) -> None:
        """Make uses of a node an interface, all of them by default; without uses there is none."""
        edges = set(uses_of(node)) if edges is None else edges
        if edges:
            self.sites[key] = _OpenSite(node, edges, module)
            self._lying[node].add(key)
            self._rank.setdefault(key, len(self._rank))

    def bypass(self, node: fx.Node) -> None:
        """Remove a node that returns its first argument unchanged."""
        value = node.args[0]
        assert isinstance(value, fx.Node)
        added = uses_of(node)
        removed = [(node, slot) for user, slot in uses_of(value) if user is node]
        for user, slot in added:
            set_leaf(user, slot, value)
        for key in self._at(node):
            self._move(key, value)
        for key in self._at(value):
            site = self.sites[key]
            if any(edge in site.edges for edge in removed):
                site.edges = (site.edges - set(removed)) | set(added)
        self.code.erase_node(node)

    def provenance(self, part: str) -> dict[str, Any]:
        """Return the metadata of a node that belongs to a part of the program."""
        return {"graphprog": f"program.{part}", "made_by": self.made_by}

    def call(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        before: fx.Node,
        part: str,
        kwargs: Mapping[str, Any] | None = None,
    ) -> fx.Node:
        """Insert an operation before a node; its fake value comes from running it."""
        named = dict(kwargs or {})
        with self.code.inserting_before(before):
            node = self.code.call_function(target, args, named)
        values = fx.node.map_arg(args, lambda inner: fake_tensor(inner))
        mode = fake_mode_of(fake_tensor(self.code.find_nodes(op="placeholder")[0]))
        with running(mode):
            node.meta = {"val": target(*values, **named), **self.provenance(part)}
        return node

    def add_source(
        self, source: nn.Module, path: str, value: torch.Tensor, like: fx.Node
    ) -> fx.Node:
        """Register a new frozen tensor under ``source`` and read it before a node.

        It takes the dtype and fake mode of that node's value. Its name gets a number if another
        tensor already has the name, as for a layer that is called twice.
        """
        fake = fake_tensor(like)
        own = nn.Parameter(value.to(fake.dtype), requires_grad=False)
        *parents, name = path.split(".")
        for parent in parents:
            source = source.get_submodule(parent)
        names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(1)))
        free = next(candidate for candidate in names if not hasattr(source, candidate))
        source.register_parameter(free, own)
        with self.code.inserting_before(like):
            node = self.code.create_node("get_attr", ".".join(("source", *parents, free)))
        node.meta["val"] = fake_mode_of(fake).from_tensor(own, static_shapes=True)
        return node

    def substitute(self, old: fx.Node, new: fx.Node, *, fused: bool = False) -> None:
        """Make all users of ``old`` read ``new``, and remove ``old``.

        Interfaces follow: those at ``old`` lie at ``new`` afterwards, and a use by ``old`` of a
        value becomes the uses of that value by what computes ``new``.

        Args:
            old: the operation to replace.
            new: what its users read instead.
            fused: ``new`` does at once what ``old`` and operations before it did; interfaces whose
                values only ``old`` read are removed.

        Raises:
            PassError: an interface lies at a value that only ``old`` read; names it.
        """
        read = [] if fused else old.all_input_nodes
        followed = {
            value: set(uses_of(old) if new is value else uses_for(new, value, self._original))
            for value in read
        }
        for user, slot in uses_of(old):
            set_leaf(user, slot, new)
        for key in self._at(old):
            self._move(key, new)
        for value, uses in followed.items():
            self._follow(value, old, uses)
        self.code.erase_node(old)

    def rewrite(
        self,
        node: fx.Node,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        reading: Mapping[int, Iterable[Slot]],
    ) -> None:
        """Make a node compute its value by another operation, from new nodes before it.

        It keeps its name, and the interfaces at its value.

        Args:
            node: the node.
            target: its new operation.
            args: arguments of that.
            reading: for each slot of an old operand, the uses that replace it; interfaces follow.
        """
        for value in node.all_input_nodes:
            for key in self._at(value):
                site = self.sites[key]
                by_node = {edge for edge in site.edges if edge[0] is node}
                new = {edge for _, slot in by_node for edge in reading[slot]}
                site.edges = (site.edges - by_node) | new
        node.target, node.args, node.kwargs = target, args, {}

    def _follow(self, value: fx.Node, old: fx.Node, uses: set[Slot]) -> None:
        """Give the interfaces at a value other uses instead of those by a removed node."""
        lost = []
        for key in self._at(value):
            site = self.sites[key]
            rest = {edge for edge in site.edges if edge[0] is not old}
            if rest != site.edges:
                site.edges = rest | uses
            if not site.edges:
                lost.append(key)
        if lost:
            raise PassError(
                f"{self.made_by or 'the pass'} replaces {old.name}, and nothing reads the value at "
                f"{', '.join(lost)} any more",
                [
                    "compute the new value from the one at that interface",
                    f"remove interfaces that no longer exist: edit.drop_sites({lost})",
                ],
            )

    def replace_placeholder(self, old: fx.Node, value: torch.Tensor) -> fx.Node:
        """Add an input with the place and name of an old one, which stays in the code."""
        with self.code.inserting_before(old):
            new = self.code.placeholder(str(old.target))
        new.meta["val"] = value
        return new

    def add_input(self, name: str, value: torch.Tensor) -> fx.Node:
        """Add an input after the others; the caller adapts the call spec of the graph."""
        with self.code.inserting_after(self.code.find_nodes(op="placeholder")[-1]):
            node = self.code.placeholder(name)
        node.meta["val"] = value
        return node

    def erase_input(self, node: fx.Node) -> None:
        """Remove an input, and the dead code that depends on it.

        Other dead code stays: an earlier change may be undone later, and then it is read again.
        """
        stack, found = [node], {node}
        while stack:
            fresh = {user for user in stack.pop().users if user not in found}
            found |= fresh
            stack += fresh
        assert self.code.output_node() not in found
        ready = [one for one in found if not one.users]
        while ready:
            last = ready.pop()
            read = [part for part in last.all_input_nodes if part in found]
            self.code.erase_node(last)
            ready += [part for part in read if not part.users]

    def drop_sites(self, keys: Iterable[str]) -> None:
        """Remove interfaces that no longer exist."""
        for key in (keys,) if isinstance(keys, str) else tuple(keys):
            del self.sites[key]

    def set_outputs(self, nodes: Sequence[Any], reading: Collection[Slot] = ()) -> None:
        """Make the graph return these nodes; what the old outputs need stays in the code.

        Args:
            nodes: the new results.
            reading: uses that replace a use as a result; interfaces follow.
        """
        output = self.code.output_node()
        for site in self.sites.values():
            returned = {edge for edge in site.edges if edge[0] is output}
            if returned:
                moved = {edge for edge in reading if leaves_of(edge[0])[edge[1]] is site.node}
                site.edges = (site.edges - returned) | moved
        output.args = (tuple(nodes),)

    def read_by(self, key: str, reading: Collection[Slot]) -> None:
        """Make new uses of the value at an interface belong to it.

        They belong to the interfaces whose change it follows, too: see :meth:`redirect`.
        """
        own = self.sites[key]
        before = set(own.edges)
        for other in self._at(own.node):
            site = self.sites[other]
            after = self._rank[other] > self._rank[key]
            if before <= site.edges and not (after and before == site.edges):
                site.edges = site.edges | set(reading)

    def record(self, insertion: Insertion) -> None:
        """Record an insertion, so that it can be undone."""
        self.insertions.append(insertion)

    def share(self, part: str, value: fx.Node) -> None:
        """Make a value available to other parts of the program as ``program.<part>``."""
        self.parts[part] = value

    def erase_dead(self, roots: Iterable[fx.Node] = ()) -> None:
        """Remove unused nodes, but not inputs, outputs, modes and ``roots``."""
        kept = {*roots, *self.alive(name for mode in self.modes for name in mode.nodes)}
        # not fx's own method, which needs sorted nodes, and some are still to be removed
        waiting = [node for node in self.code.nodes if _is_dead(node, kept)]
        while waiting:
            node = waiting.pop()
            read = node.all_input_nodes
            self.code.erase_node(node)
            waiting += [part for part in read if _is_dead(part, kept)]

    def finish(self) -> Graph:
        """Check the code and return the new Graph."""
        self.code.lint()
        alive = set(self.code.nodes)
        sites = {}
        for key, site in self.sites.items():
            edges = {(user, slot) for user, slot in site.edges if user in alive}
            if site.node in alive and edges:
                ordered = sorted(edges, key=lambda item: (item[0].name, item[1]))
                sites[key] = Site(
                    site.node.name,
                    tuple(Edge(user.name, slot) for user, slot in ordered),
                    site.module,
                )
        weights: Weights = self.changes.pop("weights", self.graph.weights)
        if self._children:
            weights = Weights(weights.source, _extended(weights.program, self._children))
        fields: dict[str, Any] = {
            "code": self.code,
            "weights": weights,
            "sites": sites,
            "aliases": {alias: key for alias, key in self.graph.aliases.items() if key in sites},
            "insertions": tuple(self.insertions),
            "modes": tuple(self.modes),
            "parts": {part: node.name for part, node in self.parts.items() if node in alive},
        }
        fields |= self.changes
        fields["base"] = self.graph.source if fields["insertions"] else None
        return dataclasses.replace(self.graph, **fields)


def _is_dead(node: fx.Node, kept: Collection[fx.Node]) -> bool:
    return not node.users and node.op not in ("placeholder", "output") and node not in kept


def _extended(program: nn.Module, children: dict[str, nn.Module]) -> ProgramParts:
    """Return the parts of the program, with the old children and the new ones."""
    return ProgramParts({**dict(program.named_children()), **children})
