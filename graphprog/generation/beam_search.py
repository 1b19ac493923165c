"""Beam search: the most probable continuations of each prompt, extended in parallel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from graphprog.generation.decode_loop import last_scores, select
from graphprog.generation.decoder import Decoder


@dataclasses.dataclass
class Beam:
    """The beams of one prompt.

    Attributes:
        width: number of beams.
        length_penalty: the score of a finished beam is log-probability over length to this power.
        ends: whether tokens end a text.
        going: unfinished beams with their log-probability, the best first.
        finished: scores, tokens and log-probabilities of finished beams.
    """

    width: int
    length_penalty: float
    ends: Callable[[Sequence[int]], bool]
    going: list[tuple[float, tuple[int, ...]]] = dataclasses.field(
        default_factory=lambda: [(0.0, ())]
    )
    finished: list[tuple[float, tuple[int, ...], float]] = dataclasses.field(default_factory=list)
    done: bool = False

    def step(self, shares: torch.Tensor) -> tuple[list[int], list[int]]:
        """Extend the beams by one token.

        Args:
            shares: log-probabilities of the next token [beams, V].

        Returns:
            For each new beam, the index of the beam that it extends, and its token.
        """
        so_far = torch.tensor([total for total, _ in self.going], dtype=torch.float64)
        totals = (shares.double() + so_far[:, None]).flatten()
        found: list[tuple[float, tuple[int, ...]]] = []
        origins: list[int] = []
        for rank, (total, place) in enumerate(_descending(totals, 2 * self.width)):
            origin, token = divmod(place, shares.shape[1])
            ids = (*self.going[origin][1], token)
            if not self.ends(ids):
                found.append((total, ids))
                origins.append(origin)
            elif rank < self.width:
                self._finish(total, ids)
            if len(found) == self.width:
                break
        self.going = found
        self.done = not found or (
            len(self.finished) >= self.width
            and self.finished[-1][0] >= self._score(found[0][0], len(found[0][1]))
        )
        return origins, [ids[-1] for _, ids in found]

    def best(self) -> tuple[tuple[int, ...], float]:
        """Return tokens and log-probability of the best beam, finished or not."""
        if not self.done:
            for total, ids in self.going:
                self._finish(total, ids)
        _, ids, total = self.finished[0]
        return ids, total

    def _score(self, total: float, length: int) -> float:
        return float(total / length**self.length_penalty)

    def _finish(self, total: float, ids: tuple[int, ...]) -> None:
        self.finished.append((self._score(total, len(ids)), ids, total))
        self.finished.sort(key=lambda one: one[0], reverse=True)
        del self.finished[self.width :]


def _descending(totals: torch.Tensor, few: int) -> Iterator[tuple[float, int]]:
    """Yield values and their indices in descending order; sorts all only if more than few are read.

    Many tokens may end a text, so twice the width is not always enough.
    """
    best = totals.topk(min(few, len(totals)))
    yield from zip(best.values.tolist(), best.indices.tolist(), strict=True)
    if few < len(totals):
        rest = totals.index_fill(0, best.indices, -torch.inf).sort(descending=True, stable=True)
        for total, place in zip(rest.values.tolist(), rest.indices.tolist(), strict=True):
            if total == -torch.inf:
                return
            yield total, place


def search(
    decoder: Decoder,
    inputs: Mapping[str, torch.Tensor],
    beams: Sequence[Beam],
    limit: int,
    tick: Callable[[int], None],
) -> None:
    """Run a beam search for several prompts, each to its end.

    Args:
        decoder: gives logits.
        inputs: inputs by name, with one row per prompt.
        beams: one for each prompt.
        limit: maximum number of tokens of a text.
        tick: called after each token with the number of unfinished prompts.
    """
    logits, cache = decoder.advance(inputs)
    going = list(beams)
    for step in range(limit):
        shares = last_scores(logits).log_softmax(-1)
        rows: list[int] = []
        tokens: list[int] = []
        start = 0
        kept = []
        for beam in going:
            count = len(beam.going)
            origins, new = beam.step(shares[start : start + count])
            if not beam.done:
                rows += [start + origin for origin in origins]
                tokens += new
                kept.append(beam)
            start += count
        tick(len(kept))
        if not kept or step + 1 == limit:
            return
        order = torch.tensor(rows)
        inputs = decoder.roles.grown(select(inputs, order), torch.tensor(tokens))
        logits, cache = decoder.advance(inputs, decoder.select(cache, order))
        going = kept
