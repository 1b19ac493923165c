"""Lowering of the text parts of a program to tokens, before any pass runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from graphprog.alignments.base import Alignment
from graphprog.alignments.verbalizers.score import Score
from graphprog.alignments.verbalizers.verbalizer import Verbalizer
from graphprog.analysis.token_inputs import TokenInputs, sees_ahead, writes_on
from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.program import Program
from graphprog.errors import InterfaceError, PassError, ProgramError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.prompts.concatenative import Concatenative
from graphprog.manipulations.prompts.prefix import Prefix
from graphprog.text.prompting.part import TextPart
from graphprog.text.prompting.prompt import Prompt
from graphprog.text.prompting.tokenizer import require_tokenizer
from graphprog.values.base import Learnable
from graphprog.values.initializers import Tokens
from graphprog.values.text_prefix import TextPrefix

KEEP_AS_TEXT = "set kept='text' on instruction and demonstrations"

LABEL = "prompt"
"""Name of the program part that holds its text."""


def realized(program: Program, graph: Graph) -> tuple[Program, Prompt | None]:
    """Replace text parts of a program by prefixes or prompts, and words by tokens.

    Args:
        program: any program; one without text is returned unchanged.
        graph: the graph that it is compiled into.

    Returns:
        The program, and the prompt that adds its text to queries; None without a tokenizer.

    Raises:
        ProgramError: it needs a tokenizer and there is none; the tokenizer cannot encode a word or
            text; or the text cannot be stored as requested.
    """
    prompt = _prompt(program, graph)
    if prompt is None:
        return program, None
    parts: list[Manipulation | TextPart] = list(program.manipulations)
    texts = [part for part in parts if isinstance(part, TextPart)]
    if texts:
        place = parts.index(texts[0])
        parts[place:place] = _kept(prompt, graph)
    own = tuple(part for part in parts if not isinstance(part, TextPart))
    align: Alignment = program.align.with_tokens(prompt)
    if not texts and align is program.align:
        return program, prompt
    return dataclasses.replace(program, manipulations=own, align=align), prompt


def needs_tokenizer(program: Program) -> bool:
    """Whether a program has text or words in it."""
    texts = any(isinstance(part, TextPart) for part in program.manipulations)
    return texts or isinstance(program.align, Verbalizer | Score)


def _prompt(program: Program, graph: Graph) -> Prompt | None:
    if graph.tokenizer is None and not needs_tokenizer(program):
        return None
    # an end token would end the text before the answer of a language model
    return prompt_of(program, graph.tokenizer, ends=not writes_on(graph))


def prompt_of(program: Program, tokenizer: Any, ends: bool) -> Prompt:
    """Return the prompt that adds the text of a program to queries.

    Args:
        program: any program.
        tokenizer: that of the source model.
        ends: whether the special tokens after a text belong to it.

    Raises:
        ProgramError: the object is not a tokenizer, or lacks a token that the program needs.
    """
    texts = tuple(part for part in program.manipulations if isinstance(part, TextPart))
    words = isinstance(program.align, Verbalizer | Score)
    wanted = ", ".join([*(part.kind for part in texts), *([program.align.kind] if words else [])])
    tokens = require_tokenizer(tokenizer, wanted or "a query")
    gap = isinstance(program.align, Verbalizer) and program.align.position == "mask"
    answer = tokens.mask[0] if gap else ""
    return Prompt(texts, tokens, answer=answer, ends=bool(tokens.back) and ends)


def _kept(prompt: Prompt, graph: Graph) -> Sequence[Manipulation]:
    """The manipulations that stand for the text before all queries."""
    if prompt.kept in ("text", "stored") or not prompt.prefix_ids:
        return ()
    ids = prompt.prefix_ids
    if prompt.kept == "learned-tokens":
        until = "logits" if _by_token(graph) else ""
        value = Learnable(Tokens(ids))
        return (Concatenative(at="tokens", length=len(ids), value=value, until=until, name=LABEL),)
    if sees_ahead(graph):
        raise ProgramError(
            f"{graph.name} is not causal, so the keys and values of a text depend on the query "
            "after it and cannot be kept as a prefix",
            [KEEP_AS_TEXT, "to train it, set kept='learned-tokens'"],
        )
    learnable = prompt.kept == "learned-prefix"
    return (Prefix(value=TextPrefix(ids, learnable=learnable), name=LABEL),)


@contextmanager
def advising(prompt: Prompt | None) -> Iterator[None]:
    """Add a remedy to errors about text that cannot be kept as a prefix."""
    try:
        yield
    except (InterfaceError, PassError) as error:
        if prompt is not None and prompt.prefix_ids and "prefix" in prompt.kept:
            raise type(error)(error.what, [*error.remedies, KEEP_AS_TEXT]) from error
        raise


def _by_token(graph: Graph) -> bool:
    """Whether the logits have one entry per token."""
    if "logits" not in graph.aliases:
        return False
    name = TokenInputs.of(graph).ids
    ids = next(node for node in graph.placeholders if node.target == name)
    logits = fake_tensor(graph.nodes[graph.interfaces().resolve("logits").node])
    return logits.ndim == 3 and str(logits.shape[1]) == str(fake_tensor(ids).shape[1])


def calibrate(task: ReprogrammedModel) -> None:
    """Calibrate a verbalizer: store the scores of labels for queries without content.

    Raises:
        DataError: a text without content cannot be a query here.
    """
    align = task.spec.align
    if not isinstance(align, Verbalizer) or not align.content_free or task.prompt is None:
        return
    part = task.prompt.demonstrations
    fields = () if part is None else part.template.fields
    texts = align.content_free
    queries = [dict.fromkeys(fields, text) if fields else text for text in texts]
    module = task.alignment
    with torch.no_grad():
        logits: torch.Tensor = task(**task.encode(queries))
        shares = logits.float().softmax(1).mean(0)
        module.then.prior.copy_(shares.log())  # type: ignore[union-attr, operator]
