"""Encoding of queries as the tensors that the graph of a compiled program takes."""

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
    """Return rows of tokens for queries; see :meth:`graphprog.ReprogrammedModel.encode`."""
    prompt = required(prompt)
    rows = prompt.rows(prompt.texts(queries, embed))
    if prompt.answer:
        _require_one_gap(rows, prompt)
    return rows


def required(prompt: Prompt | None) -> Prompt:
    """Return the prompt of a task.

    Raises:
        ProgramError: its graph has no tokenizer.
    """
    if prompt is None:
        raise ProgramError(
            "queries need a tokenizer, but the graph has none",
            ["gp.capture(model, args, tokenizer=AutoTokenizer.from_pretrained(...))"],
        )
    return prompt


def tensors_of(
    rows: Sequence[Sequence[int]], tokens: TextTokens, inputs: TokenInputs
) -> dict[str, torch.Tensor]:
    """Return the inputs of a graph for rows of tokens, in its order, on the CPU.

    Raises:
        DataError: see :meth:`TokenInputs.tensors`; or a token is not in the vocabulary.
    """
    highest = max(map(max, rows))
    if highest >= inputs.vocabulary:
        raise DataError(
            f"the tokenizer returns token {highest}, but the model has {inputs.vocabulary} tokens",
            ["capture the model with its own tokenizer"],
        )
    return inputs.tensors(rows, tokens.pad, _constants(tokens, inputs))


def _constants(tokens: TextTokens, inputs: TokenInputs) -> dict[str, int]:
    """Return what the tokenizer gives for other inputs, such as the type of the first text."""
    given = tokens.tokenizer("a", add_special_tokens=False)
    return {name: int(given[name][0]) for name in inputs.others if name in given}


def _require_one_gap(rows: Sequence[Sequence[int]], prompt: Prompt) -> None:
    text, number = prompt.tokens.mask
    for place, row in enumerate(rows):
        if (count := row.count(number)) != 1:
            raise DataError(
                f"query {place} has {count} gaps {text}, but needs one for the answer",
                [f"write {text} in place of the answer", "use a template with the answer's field"],
            )
