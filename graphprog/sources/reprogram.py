"""One call for the common case: a model by name, data, and a method become a trained task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

from graphprog import methods
from graphprog.alignments.base import Alignment
from graphprog.alignments.label_mapping.bayesian import BayesianMap
from graphprog.alignments.label_mapping.fixed_map import FixedMap
from graphprog.alignments.label_mapping.frequency import FrequencyMap, IterativeMap
from graphprog.alignments.label_mapping.random_map import RandomMap
from graphprog.alignments.linear import LinearHead
from graphprog.capture.capture import capture
from graphprog.compiler.compile import compile
from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.program import Contract, Program
from graphprog.errors import ProgramError
from graphprog.ir.graph import Graph
from graphprog.ir.inputs import inputs_of
from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.inputs.resize_pad import ResizePad
from graphprog.manipulations.modules.additive import Additive
from graphprog.sources.model_name import nearest
from graphprog.sources.target_data import TargetData, described
from graphprog.spec.registry import Spec, fields_of
from graphprog.train.loop.fit import fit
from graphprog.values import masks

_MAPS: dict[str, type[Alignment]] = {
    "blm": BayesianMap,
    "ilm": IterativeMap,
    "flm": FrequencyMap,
    "rlm": RandomMap,
}
MAPPINGS: Mapping[str, Callable[..., Alignment]] = _MAPS
"""Input reprogramming with a label mapping: a learned frame around the resized example."""

_PAPERS: dict[str, Callable[..., Alignment]] = {
    "FixedMap": FixedMap,
    "BayesianMap": BayesianMap,
    "IterativeMap": IterativeMap,
    "FrequencyMap": FrequencyMap,
    "RandomMap": RandomMap,
}
"""Label mappings by the names that records of methods have."""

_NAMESPACES = ("conditioning", "entries", "initializers", "masks", "patches", "reparameterized")
_FRAME = 3 / 4  # side of the example, as a share of the canvas


def reprogram(
    model: str | Graph,
    train: Any,
    validation: Any = None,
    *,
    method: str | Program = "blm",
    labels: Sequence[str] = (),
    seed: int = 0,
    verbose: bool = True,
    **options: Any,
) -> ReprogrammedModel:
    """Reprogram a model in one call: capture, compile, train; prints the code that does the same.

    Size and normalization come from the model's source, classes from the data.

    Args:
        model: name of a model, as for :func:`graphprog.capture`, or a graph.
        train: training data, as for :func:`graphprog.fit`; labels are class numbers.
        validation: held-out data, which determine the best epoch.
        method: ``blm``, ``ilm``, ``flm`` or ``rlm``: a learned frame around the examples, and a
            Bayesian, iterative, frequency or random label mapping; ``linear``: a linear head on the
            features; a name of :mod:`graphprog.methods`, with such a head; or a program.
        labels: names of the classes; by default those of the data set.
        seed: seed of initial values and of the training.
        verbose: print the code.
        options: further arguments of :func:`graphprog.fit`, such as ``epochs``.

    Raises:
        CaptureError: the model cannot be loaded or captured.
        ProgramError: there is no such method, or it does not fit this model.
        DataError: labels are not class numbers, or the task cannot take the data.

    Example:
        >>> data = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])
        >>> task = gp.reprogram(graph, data, epochs=1, verbose=False)
        >>> assert task(data[0]).shape == (4, 2)
    """
    graph = model if isinstance(model, Graph) else capture(model)
    program = (
        method
        if isinstance(method, Program)
        else program_of(graph, described(train, labels), method)
    )
    if verbose:
        first = "" if isinstance(model, Graph) else f"graph = gp.capture({model!r})\n"
        given = {"seed": seed, **options}
        shown = "".join(f", {name}={value!r}" for name, value in given.items())
        print(  # noqa: T201 (what the caller asked for)
            f"{first}program = {code_of(program)}\n"
            f"task = gp.compile(graph, program, seed={seed})\n"
            f"gp.fit(task, train, validation{shown})"
        )
    task = compile(graph, program, seed=seed)
    fit(task, train, validation, seed=seed, **options)
    return task


def program_of(
    graph: Graph,
    data: TargetData,
    method: str,
    options: Mapping[str, Any] | None = None,
    contract: Contract | None = None,
) -> Program:
    """Return the program of a method for a model and data.

    Args:
        graph: the model.
        data: what the data say.
        method: its name; see :func:`reprogram`.
        options: of the method, or of the alignment that its name stands for.
        contract: of the program; by default with the normalization of the model's source.

    Raises:
        ProgramError: there is no such method or option.
    """
    given = dict(options or {})
    known = method_options(method)
    for option in given:
        if option not in known:
            shown = ", ".join(known) or "none"
            raise ProgramError(
                f"{method} has no option {option!r}{nearest(option, known)}", [f"options: {shown}"]
            )
    if contract is None:
        normalized = {"mean", "std"} <= graph.hints.keys()
        contract = Contract.of(graph, data.labels) if normalized else Contract(labels=data.labels)
    if method in MAPPINGS:
        parts = _framed(graph, data)
        return Program(parts, align=MAPPINGS[method](data.classes, **given), contract=contract)
    if method == "linear":
        head = LinearHead(data.classes, **{"at": "features", **given})
        return Program(_resized(graph, data, 1.0), align=head, contract=contract)
    name = method.replace("-", "_")
    align = LinearHead(classes=data.classes, at="features")
    if "shape" not in signature(getattr(methods, name)).parameters:
        parts = (*_resized(graph, data, 1.0), *_published(name, given))
        return Program(parts, align=align, contract=contract)
    parts = _published(name, {"shape": data.shape, **given})
    paper = methods.table()[name].align.partition("(")[0]
    mapped = _PAPERS[paper](data.classes) if paper in _PAPERS else align
    return Program(parts, align=mapped, contract=contract)


def method_options(method: str) -> tuple[str, ...]:
    """Return the names of the options of a method.

    Raises:
        ProgramError: there is no such method.
    """
    name = method.replace("-", "_")
    if method in MAPPINGS or method == "linear":
        kind = _MAPS.get(method, LinearHead)
        return tuple(one.name for one in dataclasses.fields(kind) if one.name != "classes")
    if name not in methods.__all__:
        known = [*MAPPINGS, "linear", *methods.__all__]
        raise ProgramError(
            f"there is no method {method!r}{nearest(name, known)}", [f"one of {', '.join(known)}"]
        )
    return tuple(signature(getattr(methods, name)).parameters)


def _published(name: str, given: Mapping[str, Any]) -> tuple[Manipulation, ...]:
    """Return the manipulations of a published method.

    Raises:
        ProgramError: an option that depends on the model is not given.
    """
    method = getattr(methods, name)
    open_ = [
        one.name
        for one in signature(method).parameters.values()
        if one.default is one.empty and one.name not in given
    ]
    if open_:
        needed = ", ".join(f"{one}=..." for one in open_)
        raise ProgramError(
            f"{name} needs {', '.join(open_)}, which depend on the model",
            [f"method=gp.Program(gp.methods.{name}({needed}), align=gp.LinearHead(...))"],
        )
    parts: tuple[Manipulation, ...] = tuple(method(**given))
    return parts


def _canvas(graph: Graph, data: TargetData) -> tuple[int, ...]:
    """Return the sizes of the model's images; empty if it, or the data, are something else."""
    inputs = inputs_of(graph)
    sizes = inputs[0].captured[1:] if len(inputs) == 1 else ()
    is_image = len(sizes) == len(data.shape) == 3 and inputs[0].dtype.is_floating_point
    return sizes if is_image else ()


def _resized(graph: Graph, data: TargetData, share: float) -> tuple[Manipulation, ...]:
    canvas = _canvas(graph, data)
    size = tuple(max(1, round(share * side)) for side in canvas[1:])
    if not canvas or (data.shape == canvas and share == 1):
        return ()
    return (ResizePad(shape=data.shape, size=size[0] if len(set(size)) == 1 else size),)


def _framed(graph: Graph, data: TargetData) -> tuple[Manipulation, ...]:
    """Return the frame: the example is smaller than the canvas, the pattern around it."""
    placed = _resized(graph, data, _FRAME)
    inner = [part.placed for part in placed if isinstance(part, ResizePad)]
    if not inner:
        return (Additive(),)
    return (*placed, Additive(mask=masks.border(inner=inner[0])))


def code_of(value: Any) -> str:
    """Return Python code that makes a spec, with the fields that are not their defaults."""
    if isinstance(value, tuple):
        parts = [*map(code_of, value)]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
    if not isinstance(value, Spec):
        return repr(value)
    fields = fields_of(value)
    if isinstance(value, Contract) and value.space != "model":
        del fields["range"]  # follows from the space
    module = type(value).__module__.rpartition(".")[2]
    place = f"gp.{module}." if module in _NAMESPACES else "gp."
    given = ", ".join(f"{field}={code_of(one)}" for field, one in fields.items())
    return f"{place}{type(value).__name__}({given})"
