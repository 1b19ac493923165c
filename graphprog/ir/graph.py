"""The graph of a captured, frozen model."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import sympy
import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprog.errors import InterfaceError, ProgramError
from graphprog.ir.call_spec import CallSpec
from graphprog.ir.dependence.classes import Dependence
from graphprog.ir.drawing.document import Stage
from graphprog.ir.drawing.page import notebook_html, stages_of, write_page
from graphprog.ir.execution import executable, sharing, write_updates
from graphprog.ir.fake import fake_tensor
from graphprog.ir.fingerprint import Fingerprint
from graphprog.ir.graph_file.read import read_graph
from graphprog.ir.graph_file.write import text_hash, write_graph
from graphprog.ir.interface import Interface, InterfaceTable
from graphprog.ir.memory.packed import packed_weights
from graphprog.ir.memory.recompute import Staged, saves_memory, tell
from graphprog.ir.memory.unpacking import recomputing
from graphprog.ir.parts.cut import cut
from graphprog.ir.parts.split import Parts, boundaries, result_names, steps_of
from graphprog.ir.printing import graph_text
from graphprog.ir.reading.diff import diff_text
from graphprog.ir.reading.graph_text import folded_text
from graphprog.ir.reading.summary import GraphSummary, summary_of
from graphprog.ir.records import Insertion as Insertion
from graphprog.ir.records import Mode as Mode
from graphprog.ir.records import Site as Site
from graphprog.ir.records import Step as Step
from graphprog.ir.records import Steps
from graphprog.ir.symbols import size_text
from graphprog.ir.weights import Weights
from graphprog.spec.checks import require_texts

_Place = TypeVar("_Place", bound=str | fx.Node)
_Made = TypeVar("_Made")
_KEPT = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A captured model as a flat, functional graph of ATen operations.

    It is immutable: passes return a new graph. Weights are shared with the captured model. Call it
    like the model, ``print`` it, and list its :meth:`interfaces`.

    Attributes:
        name: name of the captured model's class, or of the file.
        code: the operations. Placeholders are the tensor inputs, the output is a flat tuple.
        weights: the tensors; ``weights.source`` is the same object in every derived graph.
        call_spec: pytree shape of ``(args, kwargs)`` with the constants given at capture.
        out_spec: pytree shape of the result.
        outputs: names of the flat outputs.
        sites: location of each interface.
        aliases: interface key by alias.
        choices: qualified aliases by ambiguous alias.
        symbols: canonical letters of symbolic sizes.
        insertions: changes made by programs.
        modes: values that differ in training.
        parts: nodes of values shared between parts of the program, by part.
        history: passes that ran, with their effect and time; prints as a table.
        hints: further facts about the model: ``mean`` and ``std`` of its images, ``labels`` of its
            classes, name or folder of its ``tokenizer``, ``sample_rate`` of its audio in Hz.
        base: the graph before the first insertion; None if nothing is inserted.
        tokenizer: tokenizer of the model, if one was given.

    Example:
        >>> place = graph.interfaces().resolve("features")
        >>> place.key, place.shape
        ('head:in', ('B', 8))
    """

    name: str
    code: fx.Graph
    weights: Weights
    call_spec: CallSpec
    out_spec: pytree.TreeSpec
    outputs: tuple[str, ...]
    sites: Mapping[str, Site]
    symbols: Mapping[sympy.Symbol, sympy.Symbol]
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    insertions: tuple[Insertion, ...] = ()
    modes: tuple[Mode, ...] = ()
    parts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    history: Steps = dataclasses.field(default_factory=Steps)
    base: Graph | None = dataclasses.field(default=None, repr=False)
    hints: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tokenizer: Any = dataclasses.field(default=None, repr=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Graph:
        """Return the graph itself: it is immutable, and its weights are shared."""
        return self

    @cached_property
    def placeholders(self) -> tuple[fx.Node, ...]:
        """The tensor inputs, in order."""
        return tuple(self.code.find_nodes(op="placeholder"))

    @cached_property
    def output_nodes(self) -> tuple[Any, ...]:
        """The flat outputs: nodes, or constants that the model returns."""
        return tuple(self.code.output_node().args[0])  # type: ignore[arg-type]

    @cached_property
    def nodes(self) -> Mapping[str, fx.Node]:
        """Every node by its name."""
        return {node.name: node for node in self.code.nodes}

    @property
    def source(self) -> Graph:
        """The graph without a program, from before the first insertion."""
        return self.base or self

    @cached_property
    def module(self) -> fx.GraphModule:
        """The graph as a runnable module over the shared weights, without dead code."""
        return self.executable()

    @property
    def device(self) -> torch.device:
        """The device of the weights; without weights, that of the inputs at capture."""
        tensors = itertools.chain(self.weights.parameters(), self.weights.buffers())
        return next(tensors, fake_tensor(self.placeholders[0])).device

    def executable(
        self,
        outputs: Sequence[str] | None = None,
        device: torch.device | None = None,
        training: bool = False,
        remembered: bool = False,
    ) -> fx.GraphModule:
        """Make a runnable module over the graph's own weights, without dead code.

        Args:
            outputs: names of nodes to return instead of the graph's outputs.
            device: where the code makes new tensors; None leaves it as captured. The weights are
                wherever they were moved.
            training: compute as in training, and return updated buffers after the outputs.
            remembered: let gradients recompute weights in 8 or 4 bits; not for export.
        """
        if outputs is not None:
            require_texts("", "outputs", outputs)
        nodes = None if outputs is None else [self.nodes[name] for name in outputs]
        modes = self.modes if training else ()
        name = self.name.replace(".", "_")
        return executable(self.code, self.weights, nodes, device, modes, name, remembered)

    def _runner(self, variant: tuple[torch.device, bool, bool]) -> Callable[..., tuple[Any, ...]]:
        """Return the code to run, in stages where memory is to be saved."""
        if not saves_memory():
            return self._variants[variant]
        if variant[1] and any(mode.updates for mode in self.modes):
            tell("every value is kept: the program updates buffers, which stages would read anew")
            return self._variants[variant]
        if variant not in self._staged:
            self._staged[variant] = Staged(
                self._variants[variant], lambda code: sharing(self.weights, code, self.name)
            )
        return self._staged[variant]

    @cached_property
    def _staged(self) -> dict[tuple[torch.device, bool, bool], Staged]:
        return {}

    @cached_property
    def _packed(self) -> bool:
        return bool(packed_weights(self.weights.source))

    @cached_property
    def _variants(self) -> dict[tuple[torch.device, bool, bool], fx.GraphModule]:
        own: torch.device = fake_tensor(self.placeholders[0]).device
        return {(own, False, False): self.module}

    def run(self, flat: Sequence[torch.Tensor], training: bool = False) -> tuple[Any, ...]:
        """Run on the flat tensor inputs, on their device; returns the flat outputs.

        In training, :attr:`modes` apply, and their buffers are updated.
        """
        packed = self._packed and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        variant = (flat[0].device, training and bool(self.modes), packed)
        if variant not in self._variants:
            self._variants[variant] = self.executable(None, *variant)
        with recomputing() if packed else nullcontext():
            outputs: tuple[Any, ...] = self._runner(variant)(*flat)
        if variant[1]:
            count = len(self.output_nodes)
            write_updates(self.weights, self.modes, outputs[count:])
            outputs = outputs[:count]
        return outputs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph, with the arguments and results of the captured model."""
        flat = self.run(self.call_spec.bind(args, kwargs))
        return pytree.tree_unflatten(flat, self.out_spec)

    def evaluate(
        self, interfaces: Iterable[_Place], inputs: Sequence[torch.Tensor]
    ) -> dict[_Place, torch.Tensor]:
        """Return the values at interfaces, from one run that stops after the last of them.

        It runs in evaluation, without gradients, on the device of the weights.

        Args:
            interfaces: keys or aliases, or nodes of :attr:`code`.
            inputs: all tensor inputs, in order, on any device.

        Raises:
            InterfaceError: a name is unknown, or names several places; or one name is given alone.
        """
        if isinstance(interfaces, str):
            raise InterfaceError(
                f"interfaces must be several, not {interfaces!r:.60}",
                [f"graph.evaluate([{interfaces!r:.60}], inputs)"],
            )
        places = list(interfaces)
        table, device = self.interfaces(), self.device
        names = [
            place.name if isinstance(place, fx.Node) else table.resolve(place).node
            for place in places
        ]
        values = self.values_of(names, [value.to(device) for value in inputs])
        return dict(zip(places, values, strict=True))

    def values_of(
        self, names: Sequence[str], inputs: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        """Return the values of nodes, by name; otherwise as :meth:`evaluate`.

        The code of the last few sets of nodes is kept, so that it is made once for a data set.
        """
        read = self.kept(tuple(names), lambda: self.executable(names, self.device))
        with torch.no_grad():
            found: tuple[torch.Tensor, ...] = read(*inputs)
        return found

    def kept(self, key: Hashable, make: Callable[[], _Made]) -> _Made:
        """Return what was made of this graph under a key, or make it; the last few are kept.

        What is made may refer to the weights, on the device where they are, but not to the graph.
        """
        whole = (key, self.device)
        if whole not in self._made:
            while len(self._made) >= _KEPT:
                del self._made[next(iter(self._made))]
            self._made[whole] = make()
        made: _Made = self._made[whole]
        return made

    @cached_property
    def _made(self) -> dict[tuple[Hashable, torch.device], Any]:
        return {}

    def cut(self, start: str | Sequence[str], end: str | Sequence[str]) -> Graph:
        """Return the part from given values to others as a graph, over the same weights.

        Its first inputs are the values at ``start``; then come the graph's own inputs that the part
        reads, such as a mask, and other activations that reach it past the start. Inputs and
        outputs have the names of their interfaces: ``hidden[3]`` is ``hidden_3``. The part prints,
        saves, compiles with programs and exports like a captured graph. Tensors of a program are
        copied.

        Args:
            start: interfaces, or one.
            end: interfaces, or one; the part then returns one tensor instead of a tuple.

        Raises:
            InterfaceError: a name is unknown, or an end is not computed from the start.

        Example:
            >>> head = graph.cut("hidden[1]", "logits")
            >>> values = graph.evaluate(["hidden[1]"], [images])
            >>> assert torch.equal(head(values["hidden[1]"]), graph(images))
        """
        firsts, lasts = ([one] if isinstance(one, str) else [*one] for one in (start, end))
        return self._part(firsts, lasts)

    def _part(self, starts: Sequence[str], ends: Sequence[str], complete: bool = False) -> Graph:
        table = self.interfaces()
        first, last = ({name: table.resolve(name) for name in names} for names in (starts, ends))
        part = cut(self.code, self.weights, self.sites, first, last, complete)
        aliases = part.aliases(self.aliases)
        text = f"cut({', '.join(starts)} -> {', '.join(ends)})"
        return dataclasses.replace(
            self,
            code=part.code,
            weights=part.weights,
            call_spec=part.call_spec,
            out_spec=part.out_spec,
            outputs=part.outputs,
            sites=part.sites,
            aliases=aliases,
            choices={
                alias: names for alias, names in self.choices.items() if set(names) <= set(aliases)
            },
            insertions=(),
            modes=(),
            parts={},
            base=None,
            history=self.history.followed_by(Step(text, 0.0, True, len(part.code.nodes))),
        )

    def split(self, count: int) -> Parts[Graph]:
        """Split the graph into parts of about equal cost, for several devices or processes.

        The parts are graphs. Run one after another, as ``parts(*args)`` does, they give the results
        of the whole, bit for bit. They meet at interfaces, where few values cross.

        Args:
            count: number of parts.

        Raises:
            ProgramError: the graph has too few places where it can be split.

        Example:
            >>> parts = graph.split(2)
            >>> assert torch.equal(parts(images), graph(images))
            >>> [part.call_spec.inputs for part in parts]
            [('images',), ('hidden_0',)]
        """
        crossing = boundaries(self.code, self.sites, self.aliases, count)
        parts = []
        for starts, ends in steps_of(crossing, self.output_nodes, self.outputs):
            inputs = [f"input:{node.target}" for node in self.placeholders if node.users]
            parts.append(self._part(starts or inputs, ends, complete=True))
        results = result_names(crossing, self.output_nodes, self.outputs)
        return Parts.of(parts, self.call_spec, self.out_spec, results)

    def interfaces(self, pattern: str = "*", *, verbose: bool = False) -> InterfaceTable:
        """List the places where a program can act; prints as a table, with repeated blocks folded.

        Args:
            pattern: pattern of keys or aliases, such as ``blocks.3.*``; ``*`` matches any text.
            verbose: print every interface.

        Raises:
            InterfaceError: no interface matches; the message suggests the nearest names.
        """
        if pattern == "*" and not verbose:
            return self._interfaces
        return self._interfaces.select(pattern, verbose)

    @cached_property
    def _interfaces(self) -> InterfaceTable:
        names: dict[str, list[str]] = {}
        for alias, key in self.aliases.items():
            names.setdefault(key, []).append(alias)
        table = {}
        for key, site in self.sites.items():
            value = fake_tensor(self.nodes[site.node])
            aliases = tuple(names.get(key, ()))
            table[key] = Interface(
                key=key,
                kind=_kind_of(key, aliases),
                node=site.node,
                edges=site.edges,
                shape=tuple(size_text(size, self.symbols) for size in value.shape),
                dtype=value.dtype,
                aliases=aliases,
                module=site.module,
            )
        known = {
            alias: tuple(name for name in qualified if name in self.aliases)
            for alias, qualified in self.choices.items()
        }
        return InterfaceTable(table, known)

    @cached_property
    def text(self) -> str:
        """The canonical text; see :func:`graphprog.ir.printing.graph_text`."""
        return graph_text(self)

    @cached_property
    def bare_text(self) -> str:
        """The canonical text without provenance, the input of fingerprints."""
        return graph_text(self, provenance=False)

    def __str__(self) -> str:
        """Return the text for people, with repeated blocks folded; :attr:`text` has every line."""
        return folded_text(self)

    def __repr__(self) -> str:
        return f"<Graph {self.name}: {len(self.nodes)} nodes, {len(self.sites)} interfaces>"

    def diff(self, other: Graph) -> str:
        """Return the operations in which two graphs differ, whatever the names of their values.

        ``graph.diff(task.graph)`` shows the changes of a program. Values of which only the shape
        differs, because the shapes of their operands do, are not shown. Empty if the graphs are
        the same.
        """
        derived = self.history[:1] == other.history[:1] != ()
        return diff_text(self, other, derived)

    def summary(self) -> GraphSummary:
        """Summarize inputs, outputs, parameters, blocks, and where programs of each kind fit."""
        return summary_of(self, self.interfaces(), self.weights)

    def explain(self) -> Dependence:
        """Return what each value depends on: weights, program, samples, or other rows of a batch.

        It prints as a table of these classes, with the bytes and the FLOPs of each at the sizes of
        the capture; its ``text`` is the graph with a column for the class of each value.

        Example:
            >>> found = graph.explain()
            >>> [row[0] for row in found.rows()]
            ['weights + samples']
        """
        return Dependence.of(self)

    def draw(
        self,
        path: str | os.PathLike[str],
        *,
        beside: Graph | None = None,
        values: Mapping[str, torch.Tensor] | None = None,
    ) -> Path:
        """Write the graph as a page for a browser: one file, which needs no network.

        Modules fold and unfold, repeated ones are folded at first; see ``docs/graph_page.md``. A
        graph with a program shows the source too.

        Args:
            path: the file to write, such as ``graph.html``.
            beside: another graph to compare with; it comes first.
            values: recorded values by name of the interface, as :func:`graphprog.record` returns
                them.

        Returns:
            The path of the file.

        Raises:
            FileError: the file cannot be written.
            InterfaceError: a recorded value is of no interface.

        Example:
            >>> values = gp.record(graph, images, at=["hidden[*]"])
            >>> graph.draw("graph.html", values=values).suffix
            '.html'
        """
        return write_page(path, self._stages(beside), values)

    def _stages(self, beside: Graph | None = None) -> list[Stage]:
        stages = stages_of(self, self.base)
        if beside is None:
            return stages
        require_graph(beside)
        derived = self.history[:1] == beside.history[:1] != ()
        first = dataclasses.replace(stages[0], derived=derived)
        return [Stage(f"beside: {beside.name}", beside), first, *stages[1:]]

    def _repr_html_(self) -> str:
        """Return the page of :meth:`draw`, for notebooks."""
        return notebook_html(self._stages(), str(self))

    @cached_property
    def _text_hash(self) -> str:
        return text_hash(self.bare_text)

    @property
    def fingerprint(self) -> Fingerprint:
        """Hash of the canonical text, and of every source weight as it is now."""
        return Fingerprint(self._text_hash, self.weight_hash())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph and its weights to a file, which :meth:`load` reads without the model.

        Interfaces, aliases, hints and the name of the tokenizer are saved; history and source lines
        are not. A result of a custom class becomes a dictionary. The file is written atomically,
        tensor by tensor.

        Raises:
            FileError: the graph has a program in it, or something that cannot be stored.
        """
        write_graph(self, path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        tokenizer: Any = None,
        device: str | torch.device = "cpu",
    ) -> Graph:
        """Read a graph that :meth:`save` wrote; it has the same fingerprint and the same results.

        Nothing in the file is executed: operations are those of PyTorch that only compute, and
        shapes come from running them on fake values.

        Args:
            path: path of the file.
            tokenizer: tokenizer of the model, for programs of text; ``hints["tokenizer"]`` names
                it.
            device: device for the weights.

        Raises:
            FileError: there is no such file, it is damaged or modified, or this version of PyTorch
                lacks one of its operations.
        """
        graph = read_graph(path, cls, torch.device(device))
        return graph if tokenizer is None else dataclasses.replace(graph, tokenizer=tokenizer)

    def weight_hash(self) -> str:
        """Return SHA-256 of the source weights as they are now.

        A later call starts at the first tensor that was written to, in the order of their names.
        """
        return self.weights.source.hash()


def _kind_of(key: str, aliases: tuple[str, ...]) -> str:
    for kind in ("input", "output"):
        if key.startswith(kind + ":"):
            return kind
    words = {alias.rsplit(".", 1)[-1] for alias in aliases}
    return "embedding" if words & {"embedding", "tokens"} else "hidden"


def require_graph(graph: object) -> None:
    """Check that an argument is a graph, and not, for example, the model itself.

    Raises:
        ProgramError: it is not; says how to get a graph.
    """
    if not isinstance(graph, Graph):
        raise ProgramError(
            f"a graph is needed, not a {type(graph).__name__}",
            ["capture the model first: graph = gp.capture(model, (example,))"],
        )
