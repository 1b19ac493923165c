"""Docstrings of installed libraries, read from their source files without importing them."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import itertools
import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize

LIBRARIES = {
    "matplotlib": "drawing plots and figures",
    "networkx": "graphs, nodes and edges",
    "numpy": "numerical arrays",
    "scipy": "scientific computing",
    "sklearn": "machine learning",
    "sympy": "symbolic mathematics",
    "torch": "deep learning with tensors",
    "transformers": "pretrained language models",
}
"""What each library is about: all that the zero-shot baseline is told."""

SIZES = {"train": 200, "validation": 50, "test": 100}
"""Docstrings of each library in each split."""

_GIVEAWAY = re.compile(
    r"\b[\w-]*(matplotlib|pyplot|networkx|numpy|ndarray|scipy|scikit|sklearn|sympy|torch|"
    r"transformer|hugging)[\w-]*|\b(np|plt|nx|mpl|aten)\.|https?:\S*",
    re.IGNORECASE,
)
_SECTION = re.compile(
    r"^\s*(\w+( \w+)?\s*\n\s*[-=~]{3,}|\w+:\s*$|\.\. |:\w+|>>>|```)", re.MULTILINE
)
_ROLE = re.compile(r":[\w:]+:(?=`)")
_FOREIGN = re.compile(r"/(tests?|testing|conftest|_vendor|extern\w*)[/_.]|/test_")
_LEAST_WORDS = 6
_MOST_OF_A_FILE = 10


@dataclasses.dataclass(frozen=True)
class Docstring:
    """One example: its text, the number of its library, and the file it stands in."""

    text: str
    label: int
    module: str


Splits = dict[str, list[Docstring]]


def docstrings(sizes: Mapping[str, int] = SIZES, seed: int = 0) -> Splits:
    """Balanced splits by name; every file, and so every module, is in one split only.

    The text is the docstring's prose up to its first section, with the names of all libraries
    taken out. No two texts anywhere share most of their words.

    Args:
        sizes: docstrings of each library, by split.
        seed: of the choice of files and docstrings.
    """
    chance = random.Random(seed)
    found: list[Docstring] = []
    for label, library in enumerate(LIBRARIES):
        candidates = _read(library, label, chance)
        found += itertools.islice(candidates, 2 * sum(sizes.values()))
    found = _distinct(found)
    splits: Splits = {name: [] for name in sizes}
    for label in range(len(LIBRARIES)):
        own = [one for one in found if one.label == label]
        for name, some in _split(own, sizes).items():
            splits[name] += some
    return splits


def prose(text: str) -> str:
    """The description in a docstring, up to its first section, without names of libraries."""
    section = _SECTION.search(text)
    text = text[: section.start()] if section else text
    text = _GIVEAWAY.sub(" ", _ROLE.sub("", text))
    return " ".join(re.sub(r"[`*_~|\\<>{}]+", " ", text).split())


def _read(library: str, label: int, chance: random.Random) -> Iterator[Docstring]:
    """Docstrings of functions and classes with enough prose, file by file in the order of chance.

    A file gives a few at most, so that many files are seen.
    """
    spec = importlib.util.find_spec(library)
    if spec is None or spec.origin is None:
        raise ImportError(f"{library} is not installed: the example reads its source files")
    root = Path(spec.origin).parent
    paths = [path for path in sorted(root.rglob("*.py")) if not _FOREIGN.search(path.as_posix())]
    chance.shuffle(paths)
    for path in paths:
        texts = [prose(text) for text in _docstrings_of(path)]
        texts = sorted({text for text in texts if len(text.split()) >= _LEAST_WORDS})
        for text in chance.sample(texts, min(len(texts), _MOST_OF_A_FILE)):
            yield Docstring(text, label, path.relative_to(root.parent).as_posix())


def _docstrings_of(path: Path) -> Iterator[str]:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield text


def _distinct(found: list[Docstring], most: float = 0.6) -> list[Docstring]:
    """Leave out every text that shares its words with an earlier one: cosine above ``most``."""
    counts = CountVectorizer(binary=True, token_pattern=r"[A-Za-z]+")
    words = normalize(counts.fit_transform([one.text for one in found]).astype(np.float32))
    similar = np.tril((words @ words.T).toarray(), -1) > most
    return [one for one, repeats in zip(found, similar.any(1), strict=True) if not repeats]


def _split(own: list[Docstring], sizes: Mapping[str, int]) -> Splits:
    """Files go to the splits one after another until each has its share."""
    files: dict[str, list[Docstring]] = {}
    for one in own:
        files.setdefault(one.module, []).append(one)
    rest, splits = iter(files.values()), {}
    for name, wanted in sizes.items():
        some: list[Docstring] = []
        while len(some) < wanted:
            some += next(rest)
        splits[name] = some[:wanted]
    return splits
