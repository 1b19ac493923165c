"""R1: replace a value on the edges of an interface."""

from __future__ import annotations

import dataclasses

import torch
from torch import fx

from graphprog.errors import InterfaceError, PassError
from graphprog.ir.call_spec import CallSpec
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph, Insertion
from graphprog.ir.interface import Interface
from graphprog.ir.sizes import same_shape
from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.passes.base import Pass
from graphprog.passes.insert.new_inputs import call_spec_of, new_input, remove_inputs
from graphprog.passes.insert.operands import at_place, input_named, read
from graphprog.passes.insert.select import selected
from graphprog.rewriting.edges import uses_of
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.fake_tracing import fake_mode_of
from graphprog.rewriting.inliner import inline
from graphprog.rewriting.toposort import CycleError, arrange, is_ordered, sort
from graphprog.spec.registry import spec
from graphprog.values.allocation import build
from graphprog.values.context import BuildContext


@spec("insert")
@dataclasses.dataclass(frozen=True)
class Insert(Pass):
    """Make the uses of an interface read the result of a manipulation of its value.

    Readers outside the interface keep the old value. Shape and dtype do not change. A wildcard such
    as ``hidden[*]`` inserts an independent copy at every match. The values that the manipulation
    ``reads`` may be computed later in the graph if they do not depend on the changed value.

    Attributes:
        op: the manipulation; ``op.at`` names the interface.
        seed: seed of random initial values.

    Example:
        >>> changed = gp.passes.Insert(gp.Additive(at="hidden[1]"))(graph)
        >>> [insertion.at for insertion in changed.insertions]
        ['blocks.1:out']
    """

    op: Manipulation
    seed: int = 0

    def run(self, graph: Graph) -> Graph:
        """Insert at every interface that ``op.at`` names."""
        places = graph.interfaces().resolve_all(self.op.at)
        generator = torch.Generator().manual_seed(self.seed)
        several = len(places) > 1 or "*" in self.op.at
        edit = Editor(graph, str(self))
        for number, place in enumerate(places):
            if number and self.op.reads:  # it may read a value that the last place shares
                graph = edit.finish()
                edit = Editor(graph, str(self))
            label = unique_label(graph, f"{self.op.label}_{number}" if several else self.op.label)
            self._insert(edit, place, label, generator)
        return edit.finish()

    def _insert(
        self, edit: Editor, place: Interface, label: str, generator: torch.Generator
    ) -> None:
        site = edit.sites[place.key]
        old, edges, known = site.node, set(site.edges), set(uses_of(site.node))
        names = at_place(self.op.reads, self.op.at, place)
        call_spec, value = call_spec_of(edit), fake_tensor(old)
        inputs = [
            old,
            *(read(edit, edit.graph, name, place.key) for name in names),
            *(
                new_input(edit, name, value, value.shape, value.dtype)
                for name in at_place(self.op.new_inputs, self.op.at, place)
            ),
        ]
        values = tuple(fake_tensor(node) for node in inputs)
        context = BuildContext(
            values[0], place.key, generator, values[1:], graph=edit.graph, nodes=(old.name,)
        )
        module = build(self.op, context)
        new, shared = one_or_two(inline(edit, label, module, inputs, place.key), module, place.key)
        same_type(place.key, values[0], new)
        if isinstance(self.op, SelectiveManipulation) and not self.op.changes_all:
            new = selected(edit, self.op, label, place, (old, new, shared))
        edit.share(label, shared)
        edit.redirect(old, edges, new, set(uses_of(old)) - known, place.key)
        order = ordered(edit, place.key, names) if names else None
        undo = RestoreUses(new.name, old.name, order, call_spec)
        edit.record(Insertion("value", label, place.key, new.name, old.name, undo, self.op.label))


@dataclasses.dataclass(frozen=True)
class RestoreUses:
    """Undo of an insertion: readers of the new value read the old one again.

    Attributes:
        result: node of the new value.
        original: node of the old value.
        order: names of all nodes in their original order, if it changed.
        call_spec: the original call spec of the graph, if inputs may have been added.
    """

    result: str
    original: str
    order: tuple[str, ...] | None = None
    call_spec: CallSpec | None = None

    def __call__(self, edit: Editor) -> None:
        """Restore the uses, the order, and the inputs."""
        edit.node(self.result).replace_all_uses_with(edit.node(self.original))
        arrange(edit.code, edit.alive(self.order or ()))
        if self.call_spec is not None:
            remove_inputs(edit, self.call_spec)


@dataclasses.dataclass(frozen=True)
class RestoreInput:
    """Undo of a replaced input: the model takes its own input again.

    Attributes:
        name: name of the input.
        value: fake value of the old input.
        result: node that replaced it.
    """

    name: str
    value: torch.Tensor
    result: str

    def __call__(self, edit: Editor) -> None:
        """Replace the new placeholder by the old one."""
        current = input_named(edit.code, self.name)
        old = edit.replace_placeholder(current, self.value)
        edit.node(self.result).replace_all_uses_with(old)
        edit.erase_input(current)


def one_or_two(
    results: tuple[fx.Node, ...], module: torch.nn.Module, where: str
) -> tuple[fx.Node, fx.Node]:
    """Return the new value, and the value that the part shares; often the same."""
    if len(results) not in (1, 2):
        raise InterfaceError(
            f"{where}: {type(module).__name__} returns {len(results)} values",
            ["return the tensor that replaces the first argument"],
        )
    return results[0], results[-1]


def ordered(edit: Editor, where: str, reads: tuple[str, ...]) -> tuple[str, ...] | None:
    """Move nodes after their operands; return the original order if it changed."""
    if is_ordered(edit.code):
        return None
    before = tuple(edit.graph.nodes)
    try:
        sort(edit.code)
    except CycleError as error:
        raise InterfaceError(
            f"{where} reads {', '.join(reads)}, which is computed from the value at {where}",
            ["read a value that is known before, such as the input of the block"],
        ) from error
    return before


def same_type(where: str, value: torch.Tensor, new: fx.Node) -> None:
    """Refuse to change shape or dtype of the value on an edge."""
    result = fake_tensor(new)
    if not same_shape(result, value) or result.dtype != value.dtype:
        raise InterfaceError(
            f"{where}: the manipulation turns {value.dtype}{list(value.shape)} into "
            f"{result.dtype}{list(result.shape)}, but a value on an edge keeps its type"
        )


def unique_label(graph: Graph, label: str) -> str:
    """Return a free name for a part of the program: ``name``, ``name_1``, ..."""
    taken = {name for name, _ in graph.weights.program.named_children()}
    if label not in taken:
        return label
    return next(f"{label}_{i}" for i in range(1, 100_000) if f"{label}_{i}" not in taken)


@spec("replace-input")
@dataclasses.dataclass(frozen=True)
class ReplaceInput(Pass):
    """Replace an input of the model by another, from which a manipulation computes the old one.

    Attributes:
        op: the manipulation, such as ResizePad; it has the new input's ``shape``.

    Example:
        >>> place = gp.ResizePad(shape=(1, 8, 8))
        >>> changed = gp.passes.ReplaceInput(place, shape=place.shape)(graph)
        >>> assert changed(torch.rand(2, 1, 8, 8)).shape == (2, 20)
    """

    op: Manipulation
    shape: tuple[int, ...]

    def requires(self, graph: Graph) -> None:
        """Check that the input is not changed yet."""
        place = graph.interfaces().resolve(self.op.at)
        if not place.key.startswith("input:"):
            raise InterfaceError(f"{self.op.kind} acts on a model input, not at {place.key}")
        if any(insertion.at == place.key for insertion in graph.insertions):
            raise PassError(f"{place.key} is already changed; {self.op.kind} must come first")

    def run(self, graph: Graph) -> Graph:
        """Put a new placeholder first and the manipulation after it."""
        place = graph.interfaces().resolve(self.op.at)
        edit = Editor(graph, str(self))
        old = edit.node(place.node)
        value = fake_tensor(old)
        module = build(self.op, BuildContext(value, place.key))
        name = str(old.target)
        label = unique_label(graph, self.op.label)
        with fake_mode_of(value):
            target = value.new_empty((value.shape[0], *self.shape))
        new = edit.replace_placeholder(old, target)
        (result,) = inline(edit, label, module, [new], place.key)
        same_type(place.key, value, result)
        edit.redirect(old, set(uses_of(old)), result, set())
        edit.code.erase_node(old)
        undo = RestoreInput(name, value, result.name)
        edit.record(Insertion("input", label, place.key, result.name, name, undo))
        return edit.finish()
