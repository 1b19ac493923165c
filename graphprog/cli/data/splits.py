"""Splits of data: for training, validation and test, without any example in two of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from graphprog.cli.data.arrays import read_arrays
from graphprog.cli.data.data_name import parse_data_name
from graphprog.cli.data.examples import Examples, require_some
from graphprog.cli.data.factories import read_factory
from graphprog.cli.data.folder import read_folder
from graphprog.cli.data.libraries import read_hub, read_packaged
from graphprog.cli.data.tables import read_table
from graphprog.errors import DataError

KINDS = ("image", "text", "audio", "array")


@dataclasses.dataclass(frozen=True)
class Splits:
    """Examples to learn from, to choose the best epoch with, and to measure on at the end."""

    train: Examples
    validation: Examples | None
    test: Examples | None


def read_examples(name: str, section: Any) -> Examples:
    """Read the examples that a name stands for.

    Args:
        name: in any form of :func:`parse_data_name`.
        section: the data of a configuration, with columns and kind.

    Raises:
        DataError: they cannot be read.
    """
    parsed = parse_data_name(name)
    if parsed.scheme == "table":
        found = read_table(parsed.rest, section.input, section.label)
    elif parsed.scheme == "arrays":
        found = read_arrays(parsed.rest, section.input, section.label)
    elif parsed.scheme == "hf":
        found = read_hub(parsed, section.input, section.label)
    elif parsed.scheme == "folder":
        found = read_folder(parsed.rest)
    else:
        reader = read_packaged if parsed.scheme == "sklearn" else read_factory
        found = reader(parsed.rest)
    if section.kind not in ("auto", found.kind):
        if found.kind == "ready" or (section.kind, found.kind) == ("audio", "array"):
            raise DataError(f"{name}: holds {found.kind} examples, not {section.kind}")
        found = dataclasses.replace(found, kind=section.kind)
    return require_some(found)


def read_splits(section: Any, seed: int) -> Splits:
    """Read all splits; a share of the training data is held out, in equal parts of each class.

    Args:
        section: the data of a configuration.
        seed: of the choice of what is held out.

    Raises:
        DataError: data cannot be read, or a split has no examples.
    """
    train = read_examples(section.train, section)
    held = {}
    shares = {
        name: getattr(section, name)
        for name in ("test", "validation")
        if isinstance(getattr(section, name), float | int)
    }
    if any(shares.values()):
        parts = _held_out(train, [*shares.values()], seed)
        for name, numbers in zip(shares, parts, strict=False):
            if shares[name] and not len(numbers):
                raise DataError(
                    f"{section.train}: a share of {shares[name]:g} of {len(train)} examples is 0",
                    [f"a larger share for {name}", f"{name}: other data"],
                )
            held[name] = train.of(numbers) if shares[name] else None
        train = require_some(train.of(parts[-1]))
    for name in ("validation", "test"):
        if isinstance(given := getattr(section, name), str):
            held[name] = read_examples(given, section)
    return Splits(train, held.get("validation"), held.get("test"))


def _held_out(examples: Examples, shares: list[float], seed: int) -> list[np.ndarray]:
    """Return the numbers of examples for each share, and those that remain, each in order."""
    drawn = np.random.default_rng(seed)
    keys = [str(label) for label in examples.labels] or [""] * len(examples)
    if len(set(keys)) > len(keys) // 2:  # numbers, which are not classes
        keys = [""] * len(keys)
    parts: list[list[np.ndarray]] = [[] for _ in range(len(shares) + 1)]
    for key in sorted(set(keys)):
        own = drawn.permutation([n for n, one in enumerate(keys) if one == key])
        counts = [round(share * len(own)) for share in shares]
        for part, numbers in zip(parts, np.split(own, np.cumsum(counts)), strict=True):
            part.append(numbers)
    return [np.sort(np.concatenate(part)).astype(int) for part in parts]
