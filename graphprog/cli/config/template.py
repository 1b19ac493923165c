"""A configuration with comments, made from the schema."""

from __future__ import annotations

import json
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from graphprog.cli.config.positions import positions
from graphprog.cli.config.read import checked
from graphprog.cli.config.schema import Configuration, Data, Method, Section, Train
from graphprog.utils.files import atomic_write

_WIDTH = 96
_AUGMENT = """
# Random changes of training images, in order:
# [[data.augment]]
# name = "torchvision:RandomHorizontalFlip"
# options = { p = 0.5 }
"""


def write_template(path: Path, model: str, data: str, method: str) -> None:
    """Write a configuration.

    Raises:
        FileError: an answer is a mistake, or the file cannot be written.
    """
    text = template(model, data, method)
    checked(tomllib.loads(text), str(path), positions(text))
    atomic_write(path, lambda file: file.write_text(text, encoding="utf-8"))


def template(model: str, data: str, method: str) -> str:
    """Return a configuration in which every key stands with what it means.

    What is not decided is a comment with the default.
    """
    parts = [
        "# A run of graphprog: graphprog train THIS_FILE; then graphprog evaluate on its folder.",
        "",
        *_lines(Configuration, {"model": model}),
        "[method]",
        *_lines(Method, {"name": method}),
        "[data]",
        *_lines(Data, {"train": data, "validation": 0.2, "test": 0.2}),
        _AUGMENT.strip(),
        "",
        "[train]",
        *_lines(Train, {"epochs": 20, "batch_size": 64, "lr": 0.01}),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _lines(section: type[Section], given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of a section, each after its description."""
    for name, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Section) or field.annotation is Data or name == "augment":
            continue
        yield from textwrap.wrap(
            field.description or "", _WIDTH, initial_indent="# ", subsequent_indent="# "
        )
        if name in given:
            yield f"{name} = {_toml(given[name])}"
        elif default is None or default == "":
            yield f"# {name} ="
        else:
            yield f"# {name} = {_toml(default)}"
        yield ""


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{}"
    return json.dumps(value, ensure_ascii=False)
