"""Scores of answers after queries: sums of the log-probabilities of their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from graphprog.alignments.base import Alignment
from graphprog.alignments.verbalizers.score import Score
from graphprog.compiler.encoding import required
from graphprog.errors import DataError, ProgramError
from graphprog.text.parsing.scores import log_probability, per_byte, per_token, relative_to_prior
from graphprog.text.prompting.answer_place import answered
from graphprog.text.prompting.prompt import Prompt, Query
from graphprog.text.prompting.selection import Embed

Run = Callable[[Sequence[Sequence[int]]], torch.Tensor]
"""From rows of tokens to the log-probability of each token [rows, S], float32."""


def score(
    align: Alignment,
    prompt: Prompt | None,
    run: Run,
    queries: Sequence[Query],
    embed: Embed | None = None,
) -> torch.Tensor:
    """Return scores [B, A] of answers; see :meth:`graphprog.ReprogrammedModel.score`."""
    if not isinstance(align, Score):
        raise ProgramError(
            f"the program scores no answers: its alignment is {align.kind}",
            ['use gp.Program([...], align=gp.Score([" yes", " no"]))'],
        )
    prompt = required(prompt)
    asked = prompt.texts(queries, embed)
    if align.by == "prior":
        asked += prompt.texts([_without_content(prompt, align.content_free)], embed)
    texts = [answered(prompt, text) for text in align.texts]
    rows, starts = _rows(prompt, asked, texts)
    ends = [len(row) for row in rows]
    found = run(rows)
    place = torch.arange(found.shape[1], device=found.device)
    first, last = (torch.tensor(item, device=found.device)[:, None] for item in (starts, ends))
    mask = (place >= first) & (place < last)
    if align.by == "token":
        scores = per_token(found, mask)
    elif align.by == "byte":
        scores = per_byte(found, mask, texts * len(asked))
    else:
        scores = log_probability(found, mask)
    scores = scores.reshape(len(asked), len(texts))
    return relative_to_prior(scores[:-1], scores[-1]) if align.by == "prior" else scores


def _rows(
    prompt: Prompt, queries: Sequence[str], answers: Sequence[str]
) -> tuple[list[list[int]], list[int]]:
    """Return the tokens of every query with every answer, and where the answers begin."""
    rows: list[list[int]] = []
    starts: list[int] = []
    for query in queries:
        (own,) = prompt.rows([query])
        for answer in answers:
            (row,) = prompt.rows([query + answer])
            if row[: len(own)] != own or len(row) == len(own):
                raise DataError(
                    f"after {query[-40:]!r} the answer {answer!r:.60} shares a token with the "
                    "query, so its own tokens cannot be determined",
                    [
                        "begin the answers with a space",
                        "use a template that ends in punctuation or a word",
                    ],
                )
            rows.append(row)
            starts.append(len(own))
    return rows, starts


def _without_content(prompt: Prompt, text: str) -> Query:
    part = prompt.demonstrations
    return text if part is None else dict.fromkeys(part.template.query_fields, text)
