"""The compiled model: a module whose only trainable parameters are ``program.*``."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphprog.alignments.picture import Pictured
from graphprog.analysis.nearest_tokens import nearest_tokens
from graphprog.analysis.token_inputs import TokenInputs, table_rows
from graphprog.compiler.data_checks import check_inputs, check_labels, class_count, rows_of_output
from graphprog.compiler.encoding import encode, required, tensors_of
from graphprog.compiler.length_checks import Limit, check_lengths, length_limits, slot_limits
from graphprog.compiler.program import Program
from graphprog.compiler.running import Running
from graphprog.compiler.scoring import score
from graphprog.errors import ProgramError
from graphprog.ir.dependence.classes import Dependence
from graphprog.ir.drawing.document import Stage
from graphprog.ir.drawing.page import notebook_html, write_page
from graphprog.ir.execution import copy_code
from graphprog.ir.graph import Graph, require_graph
from graphprog.ir.inputs import check_type, inputs_of, random_inputs
from graphprog.ir.records import Steps
from graphprog.passes.pipeline import Pipeline
from graphprog.text.prompting.prompt import Prompt, Query
from graphprog.text.prompting.selection import Embed
from graphprog.utils.torch_modes import plain_modes

_DISABLED: ContextVar[frozenset[int]] = ContextVar("disabled", default=frozenset())
"""Identities of the tasks whose program is disabled in this thread or asynchronous task."""


class ReprogrammedModel(nn.Module):
    """A frozen source model with a program, made by :func:`graphprog.compile`.

    The source is shared by all tasks over its graph: a task can move to another device, and takes
    the source with it, but converting it to another dtype raises a ``ProgramError``.

    Attributes:
        base: the source graph.
        graph: the rewritten graph.
        spec: the program as data.
        pipeline: the passes that made the graph.
        seed: seed of the initial values.
        prompt: adds the program's text to queries; None if the graph has no tokenizer.
        source: the frozen tensors.
        program: the program's tensors, one child for each part; prints the program, and the
            tensors with their shapes.
        summary: key numbers of the training, saved with the program; JSON values only.

    Example:
        >>> task = gp.compile(graph, gp.Program([gp.Additive(value=gp.Learnable("normal"))]))
        >>> with task.disabled():
        ...     assert torch.equal(task(images), graph(images))  # the source, bit for bit
    """

    def __init__(
        self,
        base: Graph,
        graph: Graph,
        spec: Program,
        pipeline: Pipeline,
        seed: int,
        prompt: Prompt | None = None,
    ) -> None:
        super().__init__()
        self.base = base
        self.graph = graph
        self.spec = spec
        self.pipeline = pipeline
        self.seed = seed
        self.prompt = prompt
        self.summary: dict[str, Any] = {}
        self.source = graph.weights.source
        self.program = graph.weights.program.described(str(spec), partial(nearest_tokens, base))
        aligned: object = self.alignment
        if isinstance(aligned, Pictured):
            aligned.describe(spec.contract.labels, base.hints.get("labels", ()), spec.align.at)
        self.source.requires_grad_(False)
        self.inputs = inputs_of(graph)
        self._table_rows = table_rows(graph)
        self._paired = _paired(graph)
        self._running = Running(graph)
        self._limits: tuple[Limit, ...] = (
            *length_limits(graph),
            *slot_limits(graph, spec.manipulations),
        )

    @property
    def alignment(self) -> nn.Module | None:
        """The module that aligns the outputs; None without an alignment."""
        return getattr(self.program, "align", None)

    @property
    def history(self) -> Steps:
        """The passes that made the rewritten graph; prints as a table."""
        return self.graph.history

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that the source was captured with; None without one."""
        return self.base.tokenizer

    @property
    def device(self) -> torch.device:
        """The device of its tensors."""
        tensors = itertools.chain(self.parameters(), self.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    def encode(
        self, queries: Sequence[Query], embed: Embed | None = None
    ) -> dict[str, torch.Tensor]:
        """Encode queries as inputs of the graph: ``task(**task.encode(queries))``.

        The program's text is added to each query, except for text stored as keys and values. The
        tokens are checked to be those of the whole text. Rows are padded on the right.

        Args:
            queries: for each a mapping with the template's fields before the answer, or a text if
                there is one such field or no template.
            embed: from n texts to an array [n, d], for demonstrations in the ``nearest`` order.

        Returns:
            Tensors [B, S] by input name, in the order of the graph, on the device of the task.

        Raises:
            DataError: a query does not match the template, the limit, the stored text or the
                graph.
            ProgramError: the graph has no tokenizer, or the order is ``nearest`` and ``embed`` is
                not given.
        """
        return self._tensors(encode(self.prompt, queries, embed))

    def _tensors(self, rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        tokens = required(self.prompt).tokens
        found = tensors_of(rows, tokens, TokenInputs.of(self.base))
        return {name: value.to(self.device) for name, value in found.items()}

    def score(self, queries: Sequence[Query], embed: Embed | None = None) -> torch.Tensor:
        """Return the scores of answers [B, A]; the alignment must be a :class:`graphprog.Score`.

        Args:
            queries: as for :meth:`encode`; each is run with each answer, in one call.
            embed: likewise.

        Raises:
            DataError: as :meth:`encode`.
            ProgramError: as :meth:`encode`, or the program scores no answers.
        """
        return score(self.spec.align, self.prompt, self._log_probabilities, queries, embed)

    def _log_probabilities(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = self(**self._tensors(rows))
        return found.float()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the reprogrammed model.

        Args:
            args: the tensor inputs in order, or arguments as at capture.
            kwargs: likewise.

        Returns:
            Target logits [B, classes] if the program has an alignment, else the source's outputs.

        Raises:
            DataError: an input has another shape or dtype than the graph takes; in eval mode, on
                the CPU, also if values are not finite or outside the contract's range.
        """
        if id(self) in _DISABLED.get():
            flat = self.base.run(_flat(self.base, args, kwargs))
            return pytree.tree_unflatten(flat, self.base.out_spec)
        fewer = self.training and not torch.compiler.is_compiling()
        inputs = self._bound(args, kwargs)
        graph = self._running.graph_for(inputs) if fewer else self.graph
        flat = graph.run(inputs, self.training)
        return pytree.tree_unflatten(flat, self.graph.out_spec)

    def at(self, number: int, positions: torch.Tensor, *inputs: torch.Tensor) -> Any:
        """Return the results, of which one is computed at some positions only.

        Args:
            number: of the output, a value [B, S, ...].
            positions: int64 [B, L] of each row; of axis 1 only these are computed.
            inputs: the tensor inputs, in order.
        """
        given = self._bound(inputs, {})
        graph = self._running.at(number, given)
        flat = graph.run([*given, positions], self.training)
        return pytree.tree_unflatten(flat, graph.out_spec)

    def both(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return target logits and the value that the alignment reads, from one run.

        Raises:
            ProgramError: the program has no alignment.
        """
        if self._paired is None:
            raise ProgramError("the program has an identity alignment: there is only one output")
        aligned, read = self._paired.run(self._bound(args, kwargs), self.training)
        return aligned, read

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        flat = _flat(self.graph, args, kwargs)
        if not torch.compiler.is_compiling():
            for spec, value in zip(self.inputs, flat, strict=True):
                check_type(spec, value)
            check_lengths(self._limits, self.inputs, flat)
            if not self.training and all(value.device.type == "cpu" for value in flat):
                check_inputs(self.inputs, self.spec.contract, flat, self._table_rows)
        return flat

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Run the source model inside the block, bit for bit, with its own inputs.

        Other threads and asynchronous tasks are not affected.
        """
        token = _DISABLED.set(_DISABLED.get() | {id(self)})
        try:
            yield
        finally:
            _DISABLED.reset(token)

    def train(self, mode: bool = True) -> ReprogrammedModel:
        """Switch the program's mode; the source model stays in eval mode."""
        super().train(mode)
        self.source.eval()
        return self

    def explain(self) -> Dependence:
        """Return what each value depends on, of the source with the program in it.

        It prints as a table; see :meth:`graphprog.Graph.explain`. Below it stands what a
        training step does not compute, because nobody reads it.

        Example:
            >>> head = gp.compile(graph, gp.Program(align=gp.LinearHead(2, at="features")))
            >>> [row[0] for row in head.explain().rows()]
            ['weights + samples', 'weights + program + samples']
        """
        return dataclasses.replace(self.graph.explain(), notes=tuple(self._running.notes()))

    def draw(
        self,
        path: str | os.PathLike[str],
        *,
        beside: Graph | None = None,
        values: Mapping[str, torch.Tensor] | None = None,
    ) -> Path:
        """Write a page with the source, and the graph after every pass of the program.

        Args:
            path: the file to write, such as ``task.html``.
            beside: another graph to compare with; it comes first.
            values: recorded values by name of the interface, as :func:`graphprog.record` returns
                them.

        Returns:
            The path of the file.

        Raises:
            FileError: the file cannot be written.
            InterfaceError: a recorded value is of no interface.

        Example:
            >>> task = gp.compile(graph, gp.Program([gp.Additive()]))
            >>> task.draw("task.html").suffix
            '.html'
        """
        return write_page(path, self._stages(beside), values)

    @plain_modes()
    def _stages(self, beside: Graph | None = None) -> list[Stage]:
        stages, graph = [Stage("source", self.base)], self.base
        for item in self.pipeline.passes:
            graph = item(graph)
            stages.append(Stage(str(item), graph))
        if self.pipeline.passes:
            stages[-1] = Stage(stages[-1].label, self.graph)
        if beside is None:
            return stages
        require_graph(beside)
        derived = self.base.history[:1] == beside.history[:1] != ()
        stages[0] = Stage("source", self.base, derived)
        return [Stage(f"beside: {beside.name}", beside), *stages]

    def _repr_html_(self) -> str:
        """Return the program and the page of :meth:`draw`, for notebooks."""
        program = self.spec._repr_html_()
        trained = f"<p>trained parameters: {self.trained_parameters():,}</p>"
        return program + trained + notebook_html(self._stages(), repr(self))

    def program_state(self) -> dict[str, torch.Tensor]:
        """Return learned and counted tensors by ``program.*`` name, as detached CPU copies."""
        return {
            f"program.{name}": value.detach().cpu().clone()
            for name, value in self.program.state_dict().items()
        }

    def load_program_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Set all learned and counted tensors.

        Raises:
            ProgramError: a tensor is missing, unknown, or of another shape or dtype.
        """
        own = {f"program.{name}": v for name, v in self.program.state_dict().items()}
        missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(own))
        if missing or unknown:
            raise ProgramError(f"program state: missing {missing}, unknown {unknown}")
        for name, value in state.items():
            if value.shape != own[name].shape or value.dtype != own[name].dtype:
                raise ProgramError(
                    f"program state: {name} is {value.dtype}{list(value.shape)}, "
                    f"expected {own[name].dtype}{list(own[name].shape)}"
                )
        self.program.load_state_dict(
            {name.removeprefix("program."): value for name, value in state.items()}
        )

    def source_hash(self) -> str:
        """Return the SHA-256 of the source tensors as they are now."""
        return self.source.hash()

    def trained_parameters(self) -> int:
        """Return the number of trained values of the program, without masked ones."""
        total = 0
        for module in self.program.modules():
            mask = getattr(module, "mask", None)
            for name, parameter in module.named_parameters(recurse=False):
                if name == "value" and isinstance(mask, torch.Tensor):
                    seen = (mask != 0).int().sum_to_size(parameter.shape)
                    total += int(seen.count_nonzero())
                else:
                    total += parameter.numel()
        return total

    def check(self, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor | None = None) -> None:
        """Check a batch of inputs and labels.

        Raises:
            DataError: a shape or dtype is wrong, values are not finite or outside the contract's
                range, or labels are not int64 class numbers.
        """
        check_inputs(self.inputs, self.spec.contract, inputs, self._table_rows)
        if labels is not None:
            check_labels(labels, rows_of_output(self.graph, inputs), class_count(self.graph))

    def input_example(self, batch: int = 2, seed: int = 0) -> tuple[torch.Tensor, ...]:
        """Return random inputs of the right shapes: uniform in the contract's range, ids below 2.

        Dynamic axes other than the batch have their length at capture.
        """
        return random_inputs(self.inputs, batch, self.spec.contract.range or (0.0, 1.0), seed)

    @plain_modes()
    def __deepcopy__(self, memo: dict[int, Any]) -> ReprogrammedModel:
        """Copy the program; the source model stays shared."""
        graph = self.pipeline(self.base)
        copy = ReprogrammedModel(self.base, graph, self.spec, self.pipeline, self.seed, self.prompt)
        copy.load_program_state(self.program_state())
        copy.summary = dict(self.summary)
        copy.train(self.training)
        return copy

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse pickling.

        Raises:
            ProgramError: always; says how to save a task.
        """
        raise ProgramError(
            "a task cannot be pickled", ["use gp.save(task, path), then gp.load(path, graph)"]
        )

    def __repr__(self) -> str:
        return (
            f"ReprogrammedModel {self.base.name}({', '.join(map(str, self.inputs))})\n"
            f"  program: {self.spec}\n  trained parameters: {self.trained_parameters()}"
        )


def _paired(graph: Graph) -> Graph | None:
    """Return the graph with a second output, the value that the alignment reads."""
    align = next((item for item in graph.insertions if item.kind == "output"), None)
    if align is None:
        return None
    code, mapping = copy_code(graph.code)
    names = (align.result, align.original)
    code.output_node().args = (tuple(mapping[graph.nodes[name]] for name in names),)
    return dataclasses.replace(graph, code=code, outputs=("logits", "read"), sites={}, aliases={})


def _flat(graph: Graph, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """Return the tensor inputs of a call, given in order or as at capture."""
    tensors = all(isinstance(item, torch.Tensor) for item in args)
    if not kwargs and tensors and len(args) == len(graph.call_spec.inputs):
        return list(args)
    return graph.call_spec.bind(args, kwargs)
