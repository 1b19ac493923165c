"""Whether what a configuration names exists and goes together; nothing heavy is loaded."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphprog.cli.config.mistakes import Mistake
from graphprog.cli.config.positions import Place
from graphprog.cli.config.schema import Configuration, Data, Method, Section, Train
from graphprog.cli.data.augment import change_of
from graphprog.cli.data.data_name import parse_data_name
from graphprog.cli.data.tables import chosen_columns, columns_of
from graphprog.errors import GraphprogError
from graphprog.sources.factory import attribute_of
from graphprog.sources.model_name import FACTORY, nearest, parse_name
from graphprog.sources.reprogram import MAPPINGS, method_options
from graphprog.sources.schemes import loader_of
from graphprog.spec.registry import parse_spec
from graphprog.train.metric_kinds import NAMES

_FILES = ("graph", "pt2", "gguf", "safetensors")
_LIBRARIES = {
    "timm": "timm",
    "torchvision": "torchvision",
    "hf": "transformers",
    "peft": "peft",
    "gguf": "gguf",
}

Found = Iterator[tuple[Place, str]]


class _Values:
    """Values of a document that the schema accepts, and defaults for what is not written."""

    def __init__(self, document: Mapping[str, Any], wrong: Sequence[Place]) -> None:
        self.document = document
        self.wrong = wrong

    def __getitem__(self, place: Place) -> Any:
        """Return a value; None where it is wrong or missing."""
        if any(place[: len(one)] == one or one[: len(place)] == place for one in self.wrong):
            return None
        found: Any = self.document
        for part in place:
            if not isinstance(found, Mapping) or part not in found:
                return _default(place)
            found = found[part]
        return found


_SECTIONS: dict[str, type[Section]] = {"method": Method, "data": Data, "train": Train}


def _default(place: Place) -> Any:
    section = _SECTIONS.get(str(place[0]), Configuration) if len(place) > 1 else Configuration
    field = section.model_fields.get(str(place[-1]))
    if field is None or field.is_required():
        return None
    return field.get_default(call_default_factory=True)


def found_mistakes(document: Mapping[str, Any], wrong: Sequence[Place]) -> list[Mistake]:
    """Return the mistakes in what is of the right type.

    Args:
        document: the values.
        wrong: places where the schema has found a mistake already.
    """
    values = _Values(document, wrong)
    checks: tuple[Callable[[_Values], Found], ...] = (
        _model,
        _method,
        _data,
        _columns,
        _augmentations,
        _train,
    )
    return [Mistake(place, text) for check in checks for place, text in check(values)]


def _said(error: GraphprogError) -> str:
    """Return an error as one line, with its first remedy."""
    what = " ".join(error.what.split())
    is_clear = "did you mean" in what or not error.remedies
    return what if is_clear else f"{what} (try: {error.remedies[0]})"


def _model(values: _Values) -> Found:
    name = values[("model",)]
    if not isinstance(name, str):
        return
    try:
        parsed = parse_name(name)
        if parsed.scheme in _FILES and not Path(parsed.rest).is_file():
            yield ("model",), f"{parsed.rest}: no such file"
        elif parsed.scheme not in ("graph", "pt2"):
            loader_of(parsed)
            library = _LIBRARIES.get(parsed.scheme)
            if library is not None and importlib.util.find_spec(library) is None:
                yield ("model",), f"{library} is not installed (try: pip install {library})"
            elif parsed.scheme == "python":
                attribute_of(parsed.text)
    except GraphprogError as error:
        yield ("model",), _said(error)


def _method(values: _Values) -> Found:
    name, program = values[("method", "name")], values[("method", "program")]
    if name and program:
        yield ("method", "program"), "a method has a name or is a program, not both"
    try:
        if program:
            parse_spec(program)
    except GraphprogError as error:
        yield ("method", "program"), _said(error)
    if name is None:
        return
    options = values[("method", "options")] or {}
    try:
        if FACTORY.fullmatch(name):
            attribute_of(name)
            known: tuple[str, ...] = ()
        else:
            known = () if program else method_options(name or "blm")
    except GraphprogError as error:
        yield ("method", "name"), _said(error)
        return
    for option in options:
        if option not in known:
            shown = ", ".join(known) or "none"
            text = f"{name or 'blm'} has no such option{nearest(option, known)}; known: {shown}"
            yield ("method", "options", option), text
    if values[("train", "loss")] in ("mse", "l1") and (name or "blm") in MAPPINGS and not program:
        yield ("method", "name"), f"{name or 'blm'} maps classes, but the labels are numbers"


def _data(values: _Values) -> Found:
    shares = 0.0
    for name in ("train", "validation", "test"):
        given = values[("data", name)]
        if isinstance(given, float | int):
            shares += given
        if not isinstance(given, str):
            continue
        try:
            parse_data_name(given)
        except GraphprogError as error:
            yield ("data", name), _said(error)
    for name, other in itertools.combinations(("train", "validation", "test"), 2):
        given = values[("data", other)]
        if isinstance(given, str) and values[("data", name)] == given:
            yield ("data", other), f"{given} is the data of {name} already"
    if shares >= 1:
        yield (
            ("data", "validation"),
            f"the shares of validation and test are {shares:g}: none is left",
        )
    mean, std = values[("data", "mean")], values[("data", "std")]
    if mean is not None and std is not None and len(mean) != len(std):
        yield ("data", "std"), f"has {len(std)} numbers, but mean has {len(mean)}"
    labels = values[("data", "labels")] or []
    if len(set(labels)) < len(labels):
        yield ("data", "labels"), "a name stands twice"


def _columns(values: _Values) -> Found:
    """Check columns of tables, of which the first row is read."""
    given, label = values[("data", "input")], values[("data", "label")]
    for name in ("train", "validation", "test"):
        place: Place = ("data", name)
        table = values[place]
        try:
            if not isinstance(table, str) or parse_data_name(table).scheme != "table":
                continue
        except GraphprogError:
            continue
        try:
            chosen_columns(table, columns_of(table), given, label)
        except GraphprogError as error:
            wrong_label = isinstance(label, str) and f"column {label!r}" in error.what
            key = "label" if wrong_label or "labels?" in error.what else "input"
            yield ("data", key), _said(error)
            return


def _augmentations(values: _Values) -> Found:
    for number, one in enumerate(values[("data", "augment")] or ()):
        if not isinstance(one, Mapping):
            continue
        try:
            change_of(one["name"], one.get("options", {}))
        except GraphprogError as error:
            yield ("data", "augment", number, "name"), _said(error)
    if values[("data", "augment")] and values[("data", "kind")] not in ("auto", "image", None):
        yield ("data", "augment"), f"changes images, but the data are {values[('data', 'kind')]}"


def _train(values: _Values) -> Found:
    metrics = values[("train", "metrics")]
    for number, name in enumerate(metrics or ()):
        if name not in NAMES:
            shown = f"there is no metric {name!r}{nearest(name, NAMES)}; known: {', '.join(NAMES)}"
            yield ("train", "metrics", number), shown
    monitor = values[("train", "monitor")]
    choices = ["accuracy", "loss", *(metrics or ())]
    if (
        isinstance(monitor, str)
        and metrics is not None
        and monitor.removeprefix("-") not in choices
    ):
        yield ("train", "monitor"), f"{monitor!r} is not one of {', '.join(choices)}"
    if values[("data", "validation")] == 0:
        for name in ("patience", "monitor", "metrics"):
            if values[("train", name)]:
                yield ("train", name), "needs validation data"
    if values[("train", "class_weight")] and values[("train", "loss")] != "cross_entropy":
        yield ("train", "class_weight"), "is for the loss cross_entropy"
