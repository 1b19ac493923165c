"""Batching: prompts as inputs of a graph, one row each, and rows that can run together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

import torch

from graphprog.analysis.roles import Roles
from graphprog.errors import DataError, ProgramError
from graphprog.generation.decoder import Decoder, PromptFormat

Prompts = Sequence[Any] | Mapping[str, torch.Tensor]
Rows = dict[str, torch.Tensor]


def rows_of(prompts: Prompts, roles: Roles, prompt_format: PromptFormat) -> list[Rows]:
    """Return inputs [1, ...] by name for every prompt.

    Args:
        prompts: texts, or what the program's template takes; a sequence of token ids for each; or
            tensors [B, ...] by input name.
        roles: roles of the inputs.
        prompt_format: adds the program's text to prompts.

    Raises:
        DataError: there are no prompts; one is empty, ends with padding or is not a text; or an
            input is missing.
        ProgramError: texts are given and there is no tokenizer.
    """
    if isinstance(prompts, Mapping):
        return _split(prompts, roles)
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        raise DataError(
            "prompts must be a list of texts", ['pass ["23 + 47 ="] for a single prompt']
        )
    found = []
    for number, prompt in enumerate(prompts):
        words = isinstance(prompt, str | Mapping)
        ids = _tokens(prompt, prompt_format) if words else _numbers(prompt, number)
        if not ids:
            raise DataError(f"prompt {number} has no tokens")
        wrong = [token for token in ids if not 0 <= token < roles.rows]
        if wrong:
            raise DataError(
                f"prompt {number}: token {wrong[0]} is not in the vocabulary of {roles.rows} tokens"
            )
        found.append(_of_ids(torch.tensor([ids]), roles))
    if not found:
        raise DataError("there are no prompts")
    return found


def _numbers(prompt: Any, number: int) -> list[int]:
    try:
        return [index(token) for token in prompt]
    except TypeError as error:
        raise DataError(
            f"prompt {number} is neither a text nor a sequence of token ids: {prompt!r:.80}",
            ["pass [[5, 17, 42], [8, 23]] for two prompts"],
        ) from error


def _tokens(prompt: Any, prompt_format: PromptFormat) -> list[int]:
    if prompt_format.prompt is None:
        raise ProgramError(
            "prompts that are texts need a tokenizer",
            ["gp.capture(model, ..., tokenizer=tokenizer)", "pass prompts as lists of token ids"],
        )
    return prompt_format.prompt.rows(prompt_format.prompt.texts([prompt]))[0]


def _of_ids(ids: torch.Tensor, roles: Roles) -> Rows:
    """Return inputs for the ids of one text [1, S]; masks are 1, types 0."""
    found: Rows = {}
    for spec in roles.inputs:
        meaning = roles.meanings.get(spec.name)
        if meaning == "tokens":
            found[spec.name] = ids.to(spec.dtype)
        elif meaning in ("present", "repeated") and len(spec.shape) == 2:
            found[spec.name] = torch.full_like(ids, meaning == "present").to(spec.dtype)
        elif meaning == "positions" and len(spec.shape) == 2:
            found[spec.name] = torch.arange(ids.shape[1], dtype=spec.dtype)[None]
        else:
            raise DataError(
                f"the graph takes {spec} besides {roles.tokens}",
                ["pass prompts as a mapping of input names to tensors"],
            )
    return found


def _split(inputs: Mapping[str, Any], roles: Roles) -> list[Rows]:
    names = {spec.name for spec in roles.inputs}
    if set(inputs) != names:
        raise DataError(
            f"the graph takes {', '.join(map(str, roles.inputs))}, not {', '.join(inputs)}"
        )
    if other := [name for name, value in inputs.items() if not isinstance(value, torch.Tensor)]:
        raise DataError(f"input {other[0]!r} is not a tensor", ["pass torch.tensor(...)"])
    if not inputs[roles.tokens].shape[-1]:
        raise DataError(f"{roles.tokens} has no tokens")
    _refuse_padding_behind(inputs, roles)
    sizes = {len(value) for value in inputs.values()}
    if len(sizes) != 1 or 0 in sizes:
        raise DataError(f"the inputs have {', '.join(map(str, sorted(sizes)))} rows")
    return [{name: value[i : i + 1] for name, value in inputs.items()} for i in range(sizes.pop())]


def _refuse_padding_behind(inputs: Mapping[str, torch.Tensor], roles: Roles) -> None:
    """Refuse rows that end with a masked token, because new tokens would follow it."""
    if roles.mask is None:
        return
    hidden = inputs[roles.mask][:, -1] == 0
    if bool(hidden.any()):
        row = int(hidden.nonzero()[0])
        raise DataError(
            f"row {row} ends with a token that {roles.mask} masks, so it cannot be continued",
            ["pad on the left", "pass prompts as sequences of token ids, of any lengths"],
        )


def batches_of(rows: Sequence[Rows], decoder: Decoder) -> list[tuple[list[int], Rows]]:
    """Return batches of rows that run together, with the numbers of the rows.

    Rows of equal length do. Others are padded on the left if a trial shows that this changes
    nothing: a model that counts positions from the first column would count the padding.
    """
    roles = decoder.roles
    lengths = [row[roles.tokens].shape[-1] for row in rows]
    shapes = [
        tuple(
            tuple(size for at, size in enumerate(value.shape) if not _counts(roles, name, at))
            for name, value in row.items()
        )
        for row in rows
    ]
    padded = len(set(lengths)) > 1 and len(set(shapes)) == 1 and pads_exactly(decoder, rows)
    if padded:
        wide = [_padded(row, roles, max(lengths)) for row in rows]
        return [(list(range(len(rows))), _joined(wide))]
    groups: dict[Any, list[int]] = {}
    for number, key in enumerate(zip(lengths, shapes, strict=True)):
        groups.setdefault(key, []).append(number)
    return [(numbers, _joined([rows[n] for n in numbers])) for numbers in groups.values()]


def _counts(roles: Roles, name: str, dim: int) -> bool:
    return name in roles.meanings and roles.dim(name) == dim


def _joined(rows: Sequence[Rows]) -> Rows:
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def _padded(row: Rows, roles: Roles, length: int) -> Rows:
    """Pad a row on the left: the first token is repeated, with a mask of 0."""
    found = dict(row)
    for name, meaning in roles.meanings.items():
        value, dim = row[name], roles.dim(name)
        first = value.narrow(dim, 0, 1)
        more = torch.zeros_like(first) if meaning == "present" else first
        shape = list(value.shape)
        shape[dim] = length - value.shape[dim]
        found[name] = torch.cat([more.expand(shape), value], dim)
    return found


def pads_exactly(decoder: Decoder, rows: Sequence[Rows]) -> bool:
    """Whether masked tokens before a row change nothing, tried with the shortest row."""
    roles = decoder.roles
    if roles.mask is None or "positions" in roles.meanings.values():
        return False
    row = min(rows, key=lambda one: one[roles.tokens].shape[-1])
    plain, _ = decoder.advance(row)
    wide, _ = decoder.advance(_padded(row, roles, row[roles.tokens].shape[-1] + 3))
    one, other = plain[:, -1].float(), wide[:, -1].float()
    scale = float(one.abs().max()) or 1.0
    return bool((one - other).abs().max() <= 1e-5 * scale)
