"""Select and order demonstrations, as indices."""

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
    """A random permutation of the indices below ``count``, fixed by the seed."""
    return [int(index) for index in np.random.default_rng(seed).permutation(count)]


def nearest_last(examples: npt.NDArray[np.float64], query: npt.NDArray[np.float64]) -> list[int]:
    """Indices by rising cosine similarity to a query; at ties the first comes first.

    Args:
        examples: embeddings [n, d].
        query: an embedding [d]. A zero vector has similarity 0 to all.
    """
    lengths = np.linalg.norm(examples, axis=1) * np.linalg.norm(query)
    similar = np.divide(examples @ query, lengths, out=np.zeros(len(examples)), where=lengths > 0)
    return [int(index) for index in np.argsort(similar, kind="stable")]


def embedded(embed: Embed, texts: list[str]) -> npt.NDArray[np.float64]:
    """Embed n texts as a float64 array [n, d].

    Raises:
        DataError: ``embed`` does not return such an array, or it is not finite.
    """
    found = embed(texts)
    if isinstance(found, torch.Tensor):
        found = found.detach().to("cpu", torch.float64).numpy()
    try:
        array = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"embed must return an array [n, d] of numbers: {error}") from error
    if array.ndim != 2 or len(array) != len(texts):
        raise DataError(
            f"embed returned shape {array.shape} for {len(texts)} texts; [{len(texts)}, d] is "
            "needed",
            ["return one row per text, for instance the mean over its tokens"],
        )
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise DataError(f"embed returned numbers that are not finite for {texts[row]!r:.80}")
    return array


def balanced(labels: Sequence[str], count: int | None) -> list[int]:
    """Choose the first examples of every label, equally many of each, in their order.

    Args:
        labels: the label of every example, preferred ones first.
        count: number of examples in all. If the number of labels does not divide it, the first
            labels that have another example give one more. None chooses as many as possible.

    Raises:
        DataError: a label has fewer examples than its share.
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
            f"{count} balanced demonstrations need {each + (more > 0)} of each of {len(of_each)} "
            f"labels, but {fewest!r:.60} has {len(of_each[fewest])}",
            ["lower count", "give more examples of that label", "set balanced=False"],
        )
    return sorted(
        index
        for label, indices in of_each.items()
        for index in indices[: each + (label in longer[:more])]
    )


def first_dropped(labels: Sequence[str], keep_balanced: bool) -> int:
    """The position of the demonstration to drop first.

    Args:
        labels: of the demonstrations shown, in order.
        keep_balanced: whether to drop one of a label that has the most demonstrations.
    """
    if not keep_balanced:
        return 0
    counts = Counter(labels)
    most = max(counts.values())
    return next(position for position, label in enumerate(labels) if counts[label] == most)
