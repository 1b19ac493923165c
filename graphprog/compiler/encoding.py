"""Queries of a compiled program, as the tensors that its graph takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from graphprog.analysis.token_inputs import TokenInputs
from graphprog.errors import DataError, ProgramError
from graphprog.text.prompting.prompt import Prompt, Query
from graphprog.text.prompting.selection import Embed
from graphprog.text.prompting.tokenizer import TextTokens


def encode(
    prompt: Prompt | None, queries: Sequence[Query], embed: Embed | None = None
) -> list[list[int]]:
    """Rows of tokens for queries; see :meth:`graphprog.ReprogrammedModel.encode`."""
    prompt = required(prompt)
    if isinstance(queries, str):
        raise DataError("queries are several: a list of texts, even of one", [f"[{queries!r:.60}]"])
    rows = prompt.rows(prompt.texts(queries, embed))
    if prompt.answer:
        _require_one_gap(rows, prompt)
    return rows


def required(prompt: Prompt | None) -> Prompt:
    """What a task puts around queries.

    Raises:
        ProgramError: its graph has no tokenizer.
    """
    if prompt is None:
        raise ProgramError(
            "queries need a tokenizer, and the graph has none",
            ["gp.capture(model, args, tokenizer=AutoTokenizer.from_pretrained(...))"],
        )
    return prompt


def tensors_of(
    rows: Sequence[Sequence[int]], tokens: TextTokens, inputs: TokenInputs
) -> dict[str, torch.Tensor]:
    """The inputs of a graph for rows of tokens, in its order, on the CPU.

    Raises:
        DataError: see :meth:`TokenInputs.tensors`; or a token that the source has not.
    """
    highest = max(map(max, rows))
    if highest >= inputs.vocabulary:
        raise DataError(
            f"the tokenizer gives token {highest}, the source knows {inputs.vocabulary}",
            ["the tokenizer that belongs to the model"],
        )
    return inputs.tensors(rows, tokens.pad, _constants(tokens, inputs))


def _constants(tokens: TextTokens, inputs: TokenInputs) -> dict[str, int]:
    """What the tokenizer itself gives other inputs, such as the type of a first text's tokens."""
    given = tokens.tokenizer("a", add_special_tokens=False)
    return {name: int(given[name][0]) for name in inputs.others if name in given}


def _require_one_gap(rows: Sequence[Sequence[int]], prompt: Prompt) -> None:
    text, number = prompt.tokens.mask
    for place, row in enumerate(rows):
        if (count := row.count(number)) != 1:
            raise DataError(
                f"query {place} has {count} gaps {text}; the answer stands in one",
                [f"write {text} where the answer stands", "a template with the answer's field"],
            )
