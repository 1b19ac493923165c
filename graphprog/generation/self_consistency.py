"""Programs of several texts: votes over chains of thought, and stages that ask again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import ProgramError
from graphprog.generation.batching import Prompts
from graphprog.generation.decoder import Decoder
from graphprog.generation.generate import decoder_of, generate
from graphprog.ir.graph import Graph
from graphprog.text.parsing.vote import Vote, vote


def self_consistent(
    model: ReprogrammedModel | Graph | Decoder,
    prompts: Prompts,
    *,
    num_return_sequences: int = 20,
    temperature: float = 0.7,
    seed: int = 0,
    **options: Any,
) -> list[Vote]:
    """Draw several chains of thought for each prompt, and vote on their answers.

    Self-consistency (Wang et al., ICLR 2023, arXiv:2203.11171).

    Args:
        model: as for :func:`graphprog.generate`; its program has a parser, or ``parse`` is given.
        prompts: likewise.
        num_return_sequences: chains for each prompt.
        temperature: of the draws.
        seed: of the draws.
        options: further ones of :func:`graphprog.generate`.

    Raises:
        ProgramError: nothing reads answers.

    Example:
        >>> parse = gp.Parse(r"(?s).+")
        >>> votes = gp.generation.self_consistent(
        ...     language, ["2 + 3 ="], num_return_sequences=3, max_new_tokens=2, parse=parse
        ... )
    """
    decoder = decoder_of(model, options.pop("use_cache", True))
    if decoder.prompt_format.parser is None and options.get("parse") is None:
        raise ProgramError(
            "votes need answers, and nothing reads them",
            ['align=gp.Parse(r"answer is (-?\\d+)", type=int) in the program', "parse=..."],
        )
    outputs = generate(
        decoder,
        prompts,
        num_return_sequences=num_return_sequences,
        temperature=temperature,
        seed=seed,
        **options,
    )
    answers = [text.answer for text in outputs]
    size = num_return_sequences
    return [vote(answers[at : at + size]) for at in range(0, len(answers), size)]


def as_callable(model: ReprogrammedModel | Graph | Decoder, **options: Any) -> Callable[[str], str]:
    """A function from a text to what a model writes behind it.

    Programs in stages take it: ``gp.text.Trigger().run(query, gp.generation.as_callable(task))``,
    and likewise :class:`graphprog.text.LeastToMost`.

    Args:
        model: as for :func:`graphprog.generate`; its cache is derived once.
        options: of :func:`graphprog.generate`.

    Example:
        >>> ask = gp.generation.as_callable(language, max_new_tokens=4)
        >>> found = gp.text.Trigger().run("Q: 2 + 3? A:", ask)
    """
    decoder = decoder_of(model, options.pop("use_cache", True))

    def ask(text: str) -> str:
        return generate(decoder, [text], **options)[0].text

    return ask
