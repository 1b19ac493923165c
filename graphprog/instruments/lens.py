"""The logit lens and the tuned lens: what a model would say after each block."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from graphprog.compiler.compile import compile as compile_program
from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.program import Program
from graphprog.errors import DataError, FileError, InterfaceError, ProgramError
from graphprog.instruments.places import Inputs, Model, Places, flat_inputs, graph_of, places_of
from graphprog.instruments.stream import batches_of, progress_bar
from graphprog.io.saving import load, save
from graphprog.ir.graph import Graph
from graphprog.ir.parts.cut import input_name
from graphprog.manipulations.modules.projection import Projection
from graphprog.utils.plots.answer_maps import plot_answers
from graphprog.utils.plots.figures import Path as PlotPath

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAP = "map"
_TENSORS = f"program.{_MAP}.map"


class Lens(nn.Module):
    """Reads the logits that the end of a model gives for the value at each interface.

    The end is the part of the graph after the last interface, for example the last norm and the
    head. It is applied to the values at the other interfaces (the logit lens), or to an affine map
    of them that :meth:`tune` trains (the tuned lens, Belrose et al., 2023, arXiv:2303.08112).

    Attributes:
        names: the interfaces, in order of the graph.
        end: the part of the graph after the last of them.
        maps: the affine map of each interface, once tuned.

    Example:
        >>> lens = gp.lens(language, at="hidden[*]")
        >>> said = lens(ids)
        >>> assert torch.allclose(said["hidden[1]"], language(ids), atol=1e-5)
    """

    def __init__(self, graph: Graph, at: Places) -> None:
        super().__init__()
        places = places_of(graph, at)
        order = {node.name: number for number, node in enumerate(graph.code.nodes)}
        self.names = sorted(places, key=lambda name: order[places[name].node])
        last = places[self.names[-1]]
        for name in self.names:
            if places[name].shape != last.shape:
                raise InterfaceError(
                    f"the values at {name!r} {places[name].type_text} and at {self.names[-1]!r} "
                    f"{last.type_text} differ in shape: the end of the model reads only the latter",
                    ["give interfaces of one shape, such as those of one stage"],
                )
        self.graph = graph
        self.end = graph.cut(last.key, "logits")
        self.maps = nn.ModuleDict()
        self._keys = [places[name].key for name in self.names]
        own = set(graph.call_spec.inputs)
        known = {input_name(key): key for key in graph.sites}
        self._others = [known[name] for name in self.end.call_spec.inputs[1:] if name not in own]

    def forward(self, inputs: Inputs) -> dict[str, torch.Tensor]:
        """Return the logits after each interface, by its name.

        Args:
            inputs: inputs of the model, in order or by name.

        Raises:
            DataError: they do not fit the graph.
        """
        with torch.no_grad():
            values, given = self._values(inputs)
            return {name: self._read(name, values[name], given) for name in self.names}

    def _values(self, inputs: Inputs) -> tuple[dict[str, torch.Tensor], Mapping[str, torch.Tensor]]:
        flat = flat_inputs(self.graph, inputs)
        found = self.graph.evaluate([*self._keys, *self._others], flat)
        given = dict(zip(self.graph.call_spec.inputs, flat, strict=True))
        given |= {input_name(key): found[key] for key in self._others}
        return {name: found[key] for name, key in zip(self.names, self._keys, strict=True)}, given

    def _read(
        self, name: str, value: torch.Tensor, given: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        mapped = self.maps[_slot(name)](value) if _slot(name) in self.maps else value
        rest = [given[other] for other in self.end.call_spec.inputs[1:]]
        logits: torch.Tensor = self.end.run([mapped, *rest])[0]
        return logits

    def part(self, name: str) -> ReprogrammedModel:
        """Return the model from the value at an interface to its logits: the map, then the end.

        It prints, saves, trains on and exports like every compiled model. Its inputs are those of
        :attr:`end`, the value first. Its tensors are copies.

        Args:
            name: one of :attr:`names`.

        Raises:
            InterfaceError: the lens does not read this interface.

        Example:
            >>> lens = gp.lens(language, at="hidden[*]")
            >>> value = gp.record(language, ids, at="hidden[0]")["hidden[0]"]
            >>> assert torch.equal(lens.part("hidden[0]")(value), lens(ids)["hidden[0]"])
        """
        if name not in self.names:
            raise InterfaceError(f"the lens does not read {name!r}", [", ".join(self.names)])
        if _slot(name) not in self.maps:
            return compile_program(self.end, Program())
        affine = Projection(residual=False, bias=True, at="input", name=_MAP)
        task = compile_program(self.end, Program((affine,)))
        state = self.maps[_slot(name)].state_dict()
        task.load_program_state({f"{_TENSORS}.{key}": value for key, value in state.items()})
        return task

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the maps to a folder, a program file for each.

        Raises:
            FileError: a file cannot be written.
            ProgramError: the lens was not tuned.
        """
        if not self.maps:
            raise ProgramError("the lens has no maps to save", ["train them: lens.tune(data)"])
        path = Path(folder)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"{path}: cannot be made: {error.strerror}") from error
        for name in self.names[:-1]:
            save(self.part(name), path / f"{_slot(name)}.safetensors")

    def load(self, folder: str | os.PathLike[str]) -> Lens:
        """Read the maps that :meth:`save` wrote, and return the lens.

        Raises:
            FileError: a file is missing or damaged, or belongs to another model or interface.

        Example:
            >>> lens = gp.lens(language)
            >>> losses = lens.tune(ids, batch_size=2)
            >>> lens.save("maps")
            >>> again = gp.lens(language).load("maps")
            >>> assert torch.equal(again(ids)["hidden[0]"], lens(ids)["hidden[0]"])
        """
        found = {}
        for name in self.names[:-1]:
            path = Path(folder) / f"{_slot(name)}.safetensors"
            state = load(path, self.end).program_state()
            found[name] = self._identity(name)
            own = {f"{_TENSORS}.{key}": key for key in found[name].state_dict()}
            if state.keys() != own.keys():
                raise FileError(
                    f"{path}: is not the map of a lens", ["lens.save(folder) writes it"]
                )
            found[name].load_state_dict({own[key]: value for key, value in state.items()})
        self.maps = nn.ModuleDict({_slot(name): affine for name, affine in found.items()})
        return self

    def plot(
        self,
        inputs: Inputs,
        path: PlotPath | None = None,
        *,
        tokens: Sequence[str] | None = None,
        decode: Callable[[int], str] | None = None,
        row: int = 0,
    ) -> Figure:
        """Plot the likeliest answer after each interface, by position; written to ``path``.

        Args:
            inputs: inputs of the model, in order or by name.
            path: file of the picture.
            tokens: label of each position of the inputs.
            decode: text of an answer, a token or class; by default as the tokenizer of the graph
                has it, else the number.
            row: row of the inputs that is shown.

        Raises:
            DataError: there is no such row, or not one label for each position.

        Example:
            >>> drawing = gp.lens(language).plot(ids, tokens=[*"abcdef"], decode=str)
        """
        said = self(inputs)
        rows = len(next(iter(said.values())))
        if not -rows <= row < rows:
            raise DataError(f"there is no row {row} of {rows}", ["count from 0"])
        own = [value[row].reshape(-1, value.shape[-1]) for value in said.values()]
        likeliest = torch.stack([value.float().softmax(-1).cpu() for value in own]).max(-1)
        text = decode or self._text
        answers = [[text(number) for number in one] for one in likeliest.indices.tolist()]
        return plot_answers(self.names, likeliest.values, answers, path, tokens)

    def _text(self, number: int) -> str:
        tokenizer = self.graph.tokenizer
        return str(number) if tokenizer is None else str(tokenizer.decode([number]))

    def tune(
        self,
        data: Any,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        lr: float = 1e-3,
        progress: bool | None = None,
    ) -> dict[str, float]:
        """Train an affine map for every interface but the last, to say what the model says.

        The loss is the divergence KL(model || lens) of the predictions. The model does not change.

        Args:
            data: inputs, in any form that :func:`graphprog.record` takes.
            epochs: passes over the data.
            batch_size: rows of a step, where the data are not a loader.
            lr: learning rate of Adam.
            progress: whether to show a bar; None shows it on a terminal.

        Returns:
            Mean loss of the last epoch, in nats, by interface.

        Raises:
            DataError: the values have no features on their last axis.
        """
        for name in self.names[:-1]:
            self.maps[_slot(name)] = self._identity(name)
        optimizer = torch.optim.Adam(self.maps.parameters(), lr)
        sums: dict[str, float] = {}
        for epoch in range(epochs):
            sums, steps = dict.fromkeys(self.names[:-1], 0.0), 0
            batches, total = batches_of(data, len(self.graph.placeholders), batch_size)
            text = f"tuning the lens {epoch + 1}/{epochs}"
            for inputs, _, _ in progress_bar(batches, total, text, progress):
                losses = self._losses(inputs)
                optimizer.zero_grad()
                torch.stack([*losses.values()]).sum().backward()
                optimizer.step()
                steps += 1
                for name, loss in losses.items():
                    sums[name] += float(loss.detach())
            sums = {name: total_loss / max(steps, 1) for name, total_loss in sums.items()}
        return sums

    def _losses(self, inputs: Inputs) -> dict[str, torch.Tensor]:
        values, given = self._values(inputs)
        with torch.no_grad():
            target = self._read(self.names[-1], values[self.names[-1]], given).log_softmax(-1)
        return {
            name: functional.kl_div(
                self._read(name, values[name], given).log_softmax(-1).flatten(0, -2),
                target.flatten(0, -2),
                reduction="batchmean",
                log_target=True,
            )
            for name in self.names[:-1]
        }

    def _identity(self, name: str) -> nn.Linear:
        size = self.graph.interfaces().resolve(self._keys[self.names.index(name)]).shape[-1]
        if not isinstance(size, int):
            raise DataError(f"the values at {name!r} have {size} features, not a fixed number")
        affine = nn.Linear(size, size, device=self.graph.device)
        nn.init.eye_(affine.weight)
        nn.init.zeros_(affine.bias)
        return affine


def lens(model: Model, at: Places = "hidden[*]") -> Lens:
    """Make a lens: the logits that the end of a model gives after each block.

    Args:
        model: a graph or a compiled model.
        at: interfaces whose values have one shape.

    Raises:
        InterfaceError: a name is unknown, or shapes differ.

    Example:
        >>> lens = gp.lens(language)
        >>> losses = lens.tune(ids, epochs=2, batch_size=2)
        >>> assert set(losses) == {"hidden[0]"}
    """
    return Lens(graph_of(model, at), at)


def _slot(name: str) -> str:
    return input_name(name)
