"""Programs: manipulations, one alignment, and the contract around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from graphprog.alignments.base import Alignment
from graphprog.alignments.identity import Identity
from graphprog.errors import ProgramError
from graphprog.ir.graph import Graph
from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.inputs.constant_inputs import ConstantInputs
from graphprog.manipulations.inputs.normalize import Normalize
from graphprog.manipulations.inputs.resize_pad import ResizePad
from graphprog.manipulations.inputs.token_source import TokenSource
from graphprog.manipulations.selective import SelectiveManipulation, require_selection
from graphprog.spec.checks import require_choice, require_texts
from graphprog.spec.registry import Spec, spec
from graphprog.text.prompting.part import TextPart
from graphprog.utils.html import table

SPACES = ("model", "unit", "normalized")


@spec("contract")
@dataclasses.dataclass(frozen=True)
class Contract(Spec):
    """The contract of a program: range of inputs, space in which it acts, and labels.

    Attributes:
        space: ``unit``: examples are in [0, 1], the program acts on them, then the graph normalizes
            them. ``normalized``: examples are in [0, 1], the graph normalizes them, then the
            program acts on them. ``model``: examples are in the source model's own range, and the
            graph does not normalize them.
        mean: per-channel mean of the source model's preprocessing, in units of [0, 1].
        std: per-channel standard deviation, likewise.
        range: (low, high) of valid examples; by default [0, 1], or unchecked in ``model`` space.
        labels: names of the target classes, in order.

    Example:
        >>> contract = gp.Contract(space="unit", mean=0.5, std=0.25, labels=("cat", "dog"))
        >>> program = gp.Program([gp.Additive()], align=gp.FixedMap(classes=2), contract=contract)
        >>> task = gp.compile(graph, program)
    """

    space: str = "model"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    range: tuple[float, float] | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_texts(self.kind, "labels", self.labels)
        for name in ("mean", "std", "labels"):
            value = getattr(self, name)
            value = (value,) if isinstance(value, int | float) else tuple(value)
            object.__setattr__(self, name, value)
        require_choice(self.kind, "space", self.space, SPACES)
        if self.space == "model" and (self.mean or self.std):
            raise ProgramError(
                "a contract in model space has no mean or std: nothing is normalized in the graph",
                ['use space="unit" if examples are in [0, 1]', "leave out mean and std"],
            )
        if self.space != "model" and not (self.mean and self.std):
            raise ProgramError(
                f"a contract in {self.space} space needs the source model's mean and std",
                [
                    "use mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), as most models do",
                    "use mean=0.0, std=1.0 for a source model that reads [0, 1]",
                ],
            )
        if any(not 0 <= mean <= 1 for mean in self.mean):
            raise ProgramError(
                f"mean {self.mean} is not in units of [0, 1]",
                ["divide mean and std of [0, 255] by 255"],
            )
        if any(not deviation > 0 for deviation in self.std):
            raise ProgramError(f"std {self.std} must be positive")
        if self.space != "model":
            object.__setattr__(self, "range", (0.0, 1.0))
        elif self.range is not None:
            low, high = self.range
            if not low < high:
                raise ProgramError(f"range {self.range} is not (low, high) with low < high")
            object.__setattr__(self, "range", (float(low), float(high)))

    @classmethod
    def of(cls, graph: Graph, labels: Sequence[str] = (), space: str = "unit") -> Contract:
        """Return a contract with the normalization of a graph's source model, from its hints.

        Args:
            graph: graph of a model whose ``hints`` have ``mean`` and ``std``, such as that of a
                model captured by name.
            labels: names of the target classes, in order.
            space: ``unit`` or ``normalized``.

        Raises:
            ProgramError: the graph has no such hints.

        Example:
            >>> model = nn.Conv2d(3, 8, 3).eval()
            >>> known = gp.capture(model, (images,), hints={"mean": 0.5, "std": 0.25})
            >>> gp.Contract.of(known).mean
            (0.5,)
        """
        missing = [name for name in ("mean", "std") if name not in graph.hints]
        if missing:
            raise ProgramError(
                f"the preprocessing of {graph.name} is not known: it has no hint {missing[0]!r}",
                ['gp.capture(model, ..., hints={"mean": ..., "std": ...})', "gp.Contract()"],
            )
        mean, std = graph.hints["mean"], graph.hints["std"]
        return cls(space=space, mean=mean, std=std, labels=tuple(labels))


@spec("program")
@dataclasses.dataclass(frozen=True)
class Program(Spec):
    """A whole program: y = O ∘ f ∘ I(x), without f.

    Pure data: it prints, compares, saves and loads, and refers to the model only by names of
    interfaces. Manipulations at one interface act in the given order.

    Attributes:
        manipulations: changes of inputs and hidden values; and text before or after queries,
            :class:`graphprog.Instruction` and :class:`graphprog.Demonstrations`.
        align: how outputs become target logits.
        contract: spaces, normalization and labels.

    Example:
        >>> program = gp.Program([gp.Additive(at="input")], align=gp.FixedMap(classes=2))
        >>> task = gp.compile(graph, program)
        >>> task(images).shape
        torch.Size([4, 2])
    """

    manipulations: tuple[Manipulation | TextPart, ...] = ()
    align: Alignment = dataclasses.field(default_factory=Identity)
    contract: Contract = dataclasses.field(default_factory=Contract)

    def __post_init__(self) -> None:
        given: Sequence[Manipulation | TextPart] | Manipulation | TextPart = self.manipulations
        parts = (given,) if isinstance(given, Manipulation | TextPart) else tuple(given)
        for part in parts:
            if not isinstance(part, Manipulation | TextPart):
                raise ProgramError(
                    f"a program takes manipulations, not {type(part).__name__}",
                    ["use gp.Program([gp.Additive(), ...], align=gp.BayesianMap(classes=10))"],
                )
            _require_name(part)
            if isinstance(part, SelectiveManipulation):
                require_selection(part)
        if not isinstance(self.align, Alignment):
            raise ProgramError(f"align takes an alignment, not {type(self.align).__name__}")
        object.__setattr__(self, "manipulations", parts)
        labels = getattr(self.align, "labels", ())
        if labels and not self.contract.labels:
            contract = dataclasses.replace(self.contract, labels=labels)
            object.__setattr__(self, "contract", contract)
        classes = getattr(self.align, "classes", None)
        if classes is not None and self.contract.labels and classes != len(self.contract.labels):
            raise ProgramError(
                f"the alignment has {classes} classes, the contract {len(self.contract.labels)} "
                "labels"
            )

    def _repr_html_(self) -> str:
        """Return the parts as a table, for notebooks."""
        parts = [(part.kind, getattr(part, "at", ""), str(part)) for part in self.manipulations]
        place = ", ".join(step.at for step in self.align.steps)
        rows = [*parts, (self.align.kind, place, str(self.align))]
        return table([*rows, ("contract", "", str(self.contract))], ("part", "at", "text"))

    @property
    def acting(self) -> tuple[Manipulation, ...]:
        """Return the manipulations, without text parts."""
        return tuple(part for part in self.manipulations if isinstance(part, Manipulation))

    def lowered(self) -> tuple[Manipulation, ...]:
        """Return the manipulations in the order in which they act, with normalization."""
        contract = self.contract
        parts = self.acting
        places = [part for part in parts if isinstance(part, ResizePad)]
        tokens = [part for part in parts if isinstance(part, TokenSource)]
        bound = [part for part in parts if isinstance(part, ConstantInputs)]
        others = [
            part for part in parts if not isinstance(part, ResizePad | TokenSource | ConstantInputs)
        ]
        inputs = [part for part in others if part.at.split(":")[0].split(".")[-1] == "input"]
        inner = [part for part in others if part not in inputs]
        if contract.space == "model":
            return (*places, *tokens, *inputs, *inner, *bound)
        at = next((part.at for part in [*places, *inputs]), "input")
        normalize = Normalize(contract.mean, contract.std, at=at)
        if contract.space == "unit":
            return (*places, *tokens, *inputs, normalize, *inner, *bound)
        # a zero of normalized space is the mean in unit space, in which images are resized
        places = [
            part if part.fill else dataclasses.replace(part, fill=contract.mean) for part in places
        ]
        return (*places, *tokens, normalize, *inputs, *inner, *bound)


def _require_name(part: Manipulation | TextPart) -> None:
    """Check that a manipulation can be called as it is in the program's state."""
    name: object = getattr(part, "name", "")
    if not isinstance(name, str) or "." in name:
        raise ProgramError(
            f"{part.kind}: name={name!r} cannot be the name of a part: its tensors are called "
            "program.<name>.<tensor>",
            ["use a text without dots, such as " + repr(str(name).replace(".", "_"))],
        )
