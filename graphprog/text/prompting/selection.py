"""Which demonstrations are shown, and in which order, as indices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from graphprog.errors import DataError

Embed = Callable[[list[str]], Any]
"""Embeds n texts as an array [n, d], of NumPy or PyTorch."""


def shuffled(count: int, seed: int) -> list[int]:
    """The indices below ``count`` in an order that the seed fixes."""
    return [int(index) for index in np.random.default_rng(seed).permutation(count)]


def nearest_last(examples: npt.NDArray[np.float64], query: npt.NDArray[np.float64]) -> list[int]:
    """Indices by rising cosine similarity to a query; of equal ones, the first comes first.

    Args:
        examples: embeddings [n, d].
        query: an embedding [d]. A vector of zeros has similarity 0 with all.
    """
    lengths = np.linalg.norm(examples, axis=1) * np.linalg.norm(query)
    similar = np.divide(examples @ query, lengths, out=np.zeros(len(examples)), where=lengths > 0)
    return [int(index) for index in np.argsort(similar, kind="stable")]


def embedded(embed: Embed, texts: list[str]) -> npt.NDArray[np.float64]:
    """Embeddings [n, d] of n texts.

    Raises:
        DataError: what ``embed`` returns is no such array, or is not finite.
    """
    found = embed(texts)
    if isinstance(found, torch.Tensor):
        found = found.detach().to("cpu", torch.float64).numpy()
    try:
        array = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"embed returned what is no array [n, d] of numbers: {error}") from error
    if array.ndim != 2 or len(array) != len(texts):
        raise DataError(
            f"embed returned shape {array.shape} for {len(texts)} texts; [{len(texts)}, d] is "
            "needed",
            ["return one row a text: the mean over its tokens, for instance"],
        )
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise DataError(f"embed returned numbers that are not finite for {texts[row]!r:.80}")
    return array


def balanced(labels: Sequence[str], count: int | None) -> list[int]:
    """The first examples of every label, as many of each; the order stays.

    Args:
        labels: the label of every example, the ones to prefer first.
        count: how many in all. Where the labels do not divide it, the first labels that have
            another example give one more. As many as can be, when None.

    Raises:
        DataError: labels have fewer examples than their share.
    """
    of_each: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        of_each.setdefault(label, []).append(index)
    if not of_each:
        return []
    fewest = min(of_each, key=lambda label: len(of_each[label]))
    if count is None:
        count = len(of_each[fewest]) * len(of_each)
    each, more = divmod(count, len(of_each))
    longer = [label for label, indices in of_each.items() if len(indices) > each]
    if len(of_each[fewest]) < each or len(longer) < more:
        raise DataError(
            f"{count} balanced demonstrations need {each + (more > 0)} of {len(of_each)} labels; "
            f"{fewest!r:.60} has {len(of_each[fewest])}",
            ["lower count", "give more examples of that label", "balanced=False"],
        )
    return sorted(
        index
        for label, indices in of_each.items()
        for index in indices[: each + (label in longer[:more])]
    )


def first_dropped(labels: Sequence[str], keep_balanced: bool) -> int:
    """The position of the demonstration to go first.

    Args:
        labels: of the demonstrations that are shown, in order.
        keep_balanced: take it from those labels that have the most.
    """
    if not keep_balanced:
        return 0
    counts = Counter(labels)
    most = max(counts.values())
    return next(position for position, label in enumerate(labels) if counts[label] == most)
