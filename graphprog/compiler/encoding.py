"""Queries of a compiled program, as the tensors that its graph takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from graphprog.analysis.token_inputs import TokenInputs
from graphprog.backends.parity.report import task_device
from graphprog.errors import DataError, ProgramError
from graphprog.text.prompting.prompt import Prompt, Query
from graphprog.text.prompting.selection import Embed
from graphprog.text.prompting.tokenizer import TextTokens

if TYPE_CHECKING:
    from graphprog.compiler.model import ReprogrammedModel


def encode(
    task: ReprogrammedModel, queries: Sequence[Query], embed: Embed | None = None
) -> dict[str, torch.Tensor]:
    """The inputs of a task for queries; see :meth:`graphprog.ReprogrammedModel.encode`."""
    prompt = prompt_of(task)
    rows = prompt.rows(prompt.texts(queries, embed))
    if prompt.answer:
        _require_one_gap(rows, prompt)
    return tensors_of(task, rows)


def prompt_of(task: ReprogrammedModel) -> Prompt:
    """What a task puts around queries.

    Raises:
        ProgramError: its graph has no tokenizer.
    """
    if task.prompt is None:
        raise ProgramError(
            "queries need a tokenizer, and the graph has none",
            ["gp.capture(model, args, tokenizer=AutoTokenizer.from_pretrained(...))"],
        )
    return task.prompt


def tensors_of(task: ReprogrammedModel, rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """The inputs of a task for rows of tokens, on its device, in its order.

    Raises:
        DataError: see :meth:`TokenInputs.tensors`; or a token that the source has not.
    """
    tokens, inputs = prompt_of(task).tokens, TokenInputs.of(task.base)
    highest = max(map(max, rows))
    if highest >= inputs.vocabulary:
        raise DataError(
            f"the tokenizer gives token {highest}, the source knows {inputs.vocabulary}",
            ["the tokenizer that belongs to the model"],
        )
    found = inputs.tensors(rows, tokens.pad, _constants(tokens, inputs))
    device = task_device(task)
    return {name: value.to(device) for name, value in found.items()}


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
