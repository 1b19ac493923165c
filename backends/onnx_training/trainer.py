"""Training by ONNX Runtime alone, from a file that holds a whole step."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime
import torch
from onnxruntime import OrtValue

from graphprog.alignments.label_mapping.report import MappingReport
from graphprog.alignments.label_mapping.statistical import StatisticalAlignment, StatisticalModule
from graphprog.backends.onnx_model.metadata import KEY, Documented, read_document, type_of
from graphprog.backends.onnx_training.buffers import Buffers
from graphprog.backends.onnx_training.layout import LABELS, LOSS, NEW, NORM, RATE, READ, STEP
from graphprog.backends.onnx_training.step_file import StepFile, read_entries
from graphprog.backends.onnxruntime.providers import Providers, open_session
from graphprog.compiler.data_checks import check_inputs
from graphprog.compiler.program import Program
from graphprog.errors import BackendError, DataError, FileError, TrainingError
from graphprog.io import artifact
from graphprog.io.saving import check_source
from graphprog.ir.inputs import InputSpec, batch_axis
from graphprog.spec.registry import from_json
from graphprog.values.context import BuildContext

Array = np.ndarray | torch.Tensor


class Trainer(Documented):
    """A training step written by ``export_training``, taken again and again.

    Parameters and state of the optimizer stay where they are computed: no step copies them.

    Args:
        path: the ONNX file.
        providers: as for :class:`graphprog.backends.onnxruntime.Session`.
        options: session options of ONNX Runtime.

    Raises:
        FileError: the file is missing, damaged, or holds no training step.
        BackendError: a provider that was asked for is absent or does not start.

    Attributes:
        document: the JSON document of the file.
        layout: names of the inputs and outputs of a step.
        lr: learning rate of the next steps; a schedule sets it between steps.
        loss: of the last step; NaN before the first.
        gradient_norm: of the last step: of the gradient of all parameters, before clipping.

    Example:
        >>> report = gp.backends.onnxruntime.export_training(task, "step.onnx")
        >>> trainer = gp.backends.onnxruntime.Trainer("step.onnx")
        >>> loss = trainer.step(images, labels)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        providers: Providers = "auto",
        options: onnxruntime.SessionOptions | None = None,
    ) -> None:
        self.path = os.fspath(path)
        with artifact.within(path):
            if not os.path.isfile(path):
                raise FileError("no such file", ["check the path"])
            self._session = open_session(path, providers, options)
            metadata = self._session.get_modelmeta().custom_metadata_map
            self.document = read_document(metadata.get(KEY))
            self._file: StepFile = read_entries(metadata)
            self.layout, self.lr = self._file.layout, self._file.lr
            self._entries = {entry.name: entry for entry in self._session.get_inputs()}
            if not set(self._entries) <= set(self.layout.arguments):
                raise FileError("its document belongs to another model: the inputs differ")
        self.loss = self.gradient_norm = math.nan
        device = "cuda" if "CUDA" in self._session.get_providers()[0] else "cpu"
        tensors, layout = self._file.tensors, self.layout
        start = {n: tensors[n] for n in (*layout.counted, *layout.trained, *layout.updated)}
        self._counted = Buffers({name: start.pop(name) for name in layout.counted}, device)
        self._state = Buffers({**start, **self._no_steps()}, device)
        self._found: dict[str, OrtValue] = {}
        self._mapping = self._mapping_of(self._file) if layout.counted else None
        self._counts: torch.Tensor | None = None

    @property
    def steps(self) -> int:
        """How many were taken since the optimizer began."""
        return int(self._state.read((STEP,))[STEP])

    @property
    def outputs(self) -> dict[str, np.ndarray]:
        """What the task returned in the last step, with the parameters before it, by name."""
        return {name: self._found[name].numpy() for name in self.layout.outputs if self._found}

    def step(self, *batch: Array) -> float:
        """Take a step.

        Args:
            batch: inputs of the task in order, then the labels.

        Returns:
            The loss of the batch, before the step.

        Raises:
            BackendError: ONNX Runtime fails on the batch.
            DataError: inputs or labels of another shape, dtype or range.
            TrainingError: the loss or its gradient is not finite. The step is not taken: the
                trainer has the parameters and the state that it had before.
        """
        given = self._checked(batch)
        feeds = {**given, RATE: np.array(self.lr, np.float32)}
        binding = self._session.io_binding()
        for name in self._entries:
            if name in feeds:
                binding.bind_cpu_input(name, feeds[name])
            else:
                held = self._counted if name in self.layout.counted else self._state
                binding.bind_ortvalue_input(name, held.now[name])
        for name in self.layout.state:
            binding.bind_ortvalue_output(NEW + name, self._state.then[name])
        others = [name for name in self.layout.results if not name.startswith(NEW)]
        for name in others:
            binding.bind_output(name, "cpu")
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in given.items())
            raise BackendError(f"{self.path}: failed on {shapes}: {error}") from error
        results = binding.get_outputs()[len(self.layout.state) :]
        return self._accept(dict(zip(others, results, strict=True)), given[LABELS])

    def _accept(self, found: dict[str, OrtValue], labels: np.ndarray) -> float:
        """Make the outputs of a step the new state, if they are finite."""
        loss, norm = (float(found[name].numpy()) for name in (LOSS, NORM))
        if not math.isfinite(loss) or not math.isfinite(norm):
            what = "gradient" if math.isfinite(loss) else "loss"
            raise TrainingError(
                f"the {what} of step {self.steps + 1} is not finite; the trainer keeps what the "
                f"{self.steps} steps before it made",
                ["a smaller lr, or clip=1.0 in the optimizer", "look at the data and the loss"],
            )
        self.loss, self.gradient_norm, self._found = loss, norm, found
        self._state.swap()
        if self._mapping is not None:
            values = torch.from_numpy(found[READ].numpy())
            counts = self._mapping.count(values, torch.from_numpy(labels))
            self._counts = counts if self._counts is None else self._counts + counts
        return loss

    @property
    def counts(self) -> torch.Tensor | None:
        """What was counted since the last refresh, float64 [K_S, K_T]; None where nothing was."""
        return self._counts

    def refresh(self) -> MappingReport:
        """Recompute a statistical mapping from the counts since the last refresh.

        Raises:
            TrainingError: the program counts nothing, or no step was taken since.
        """
        if self._mapping is None or self._counts is None:
            reason = "no step was taken" if self._mapping else "the program counts no mapping"
            raise TrainingError(
                f"there is nothing to refresh: {reason}",
                ["trainer.step(...) first" if self._mapping else "align=gp.BayesianMap(classes)"],
            )
        report = self._mapping.refresh(self._counts)
        self._counts = None
        state = self._mapping.state_dict(prefix="program.align.")
        self._counted.put({name: state[name] for name in self.layout.counted})
        return report

    def program_state(self) -> dict[str, torch.Tensor]:
        """Everything learned or counted, as copies by the names ``program.*``."""
        own = self._state.read((*self.layout.trained, *self.layout.updated))
        fixed = {name: self._file.tensors[name] for name in self.document.state}
        return {**fixed, **self._counted.read(self.layout.counted), **own}

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """Number of steps and moments, as copies by the names ``optimizer.*``."""
        return self._state.read((STEP, *self.layout.moments))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the program, as :meth:`graphprog.ReprogrammedModel.save` with ``resume=True`` does.

        Raises:
            FileError: the place cannot be written.
        """
        done = {"engine": "onnxruntime", "steps": self.steps, "loss": self.loss}
        summary = done if self.steps and math.isfinite(self.loss) else {}
        document = {**self._file.document, "training": summary}
        artifact.write(path, {**self._file.tensors, **self.program_state()}, document)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Resume from a saved program of the same source and spec, with a new optimizer.

        Raises:
            FileError: it is unreadable, or of another source or spec.
        """
        tensors, saved = artifact.read(path)
        own = self._file
        with artifact.within(path):
            check_source(saved.get("source"), self.document.source_name, self.document.source)
            types = {name: type_of(tensor) for name, tensor in tensors.items()}
            if saved.get("program") != own.document.get("program") or types != {
                name: type_of(tensor) for name, tensor in own.tensors.items()
            }:
                raise FileError(
                    f"its program is not of the kind that {self.path} trains",
                    ["gp.save(task, path, resume=True)", "compare the programs: print(task.spec)"],
                )
        self.load_state({**{n: tensors[n] for n in self.document.state}, **self._no_steps()})

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Replace tensors of the program and of the optimizer, by name; others stay.

        Raises:
            BackendError: one is unknown, or of another shape or dtype.
        """
        types = {name: type_of(value) for name, value in self._file.tensors.items()}
        types |= {name: type_of(value) for name, value in self._no_steps().items()}
        for name, value in state.items():
            if types.get(name) != type_of(value):
                raise BackendError(
                    f"{name}: {type_of(value)}, where the step has {types.get(name, 'nothing')}"
                )
        counted = {name: value for name, value in state.items() if name in self.layout.counted}
        self._state.put({name: value for name, value in state.items() if name in self.layout.state})
        self._counted.put(counted)
        self._counts = None

    def _checked(self, batch: tuple[Array, ...]) -> dict[str, np.ndarray]:
        """Inputs and labels by name, contiguous.

        Raises:
            DataError: as :meth:`step`.
        """
        tensors = [torch.as_tensor(value).detach().cpu() for value in batch]
        names = (*self.layout.inputs, LABELS)
        if len(tensors) != len(names):
            raise DataError(
                f"a step takes {', '.join(names)}, in this order, but was given {len(tensors)}"
            )
        check_inputs(self.inputs, self.contract, tensors[:-1])
        if (entry := self._entries.get(LABELS)) is not None:
            _check_labels(entry, self.inputs, tensors)
        pairs = zip(names, tensors, strict=True)
        return {name: np.ascontiguousarray(value.numpy()) for name, value in pairs}

    def _no_steps(self) -> dict[str, torch.Tensor]:
        """State of an optimizer that has not begun."""
        like = {name: name[name.index("program.") :] for name in self.layout.moments}
        moments = {name: torch.zeros_like(self._file.tensors[own]) for name, own in like.items()}
        return {STEP: torch.tensor(0), **moments}

    def _mapping_of(self, file: StepFile) -> StatisticalModule:
        """The module that counts, made again from the program's spec."""
        program = from_json(file.document.get("program"), file.tensors)
        if not isinstance(program, Program) or not isinstance(program.align, StatisticalAlignment):
            raise FileError(f"{self.path}: its program counts no mapping", ["export it again"])
        read = next(entry for entry in self._session.get_outputs() if entry.name == READ)
        module = program.align.build(BuildContext(torch.zeros(2, read.shape[1])))
        assert isinstance(module, StatisticalModule)
        return module


def _check_labels(
    entry: onnxruntime.NodeArg, inputs: Sequence[InputSpec], batch: Sequence[torch.Tensor]
) -> None:
    """Check that the step takes the labels.

    Raises:
        DataError: they are of another dtype or shape, or not as many as the inputs.
    """
    *values, labels = batch
    first = batch_axis(inputs)
    sizes = {
        "batch" if letter == first else letter: size
        for spec, value in zip(inputs, values, strict=True)
        for letter, size in zip(spec.shape, value.shape, strict=True)
        if isinstance(letter, str)
    }
    wanted = [sizes.get(size, size) for size in entry.shape]
    given = list(labels.shape)
    fits = len(given) == len(wanted) and all(
        isinstance(size, str) or size == own for size, own in zip(wanted, given, strict=True)
    )
    kind = type_of(labels).partition("[")[0]
    element = entry.type.removeprefix("tensor(").removesuffix(")")
    expected = {"float": "float32", "double": "float64"}.get(element, element)
    if not fits or kind != expected:
        raise DataError(
            f"labels must be {expected}{wanted}, not {kind}{given}",
            ["labels.long()" if expected == "int64" else f"labels.to(torch.{expected})"],
        )
