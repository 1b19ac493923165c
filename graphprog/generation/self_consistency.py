"""Self-consistency (votes over chains of thought), and models as functions of text."""

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
    """Sample several chains of thought for each prompt, and vote on their answers.

    Self-consistency (Wang et al., ICLR 2023, arXiv:2203.11171).

    Args:
        model: as for :func:`graphprog.generate`; its program has a parser, or ``parse`` is given.
        prompts: likewise.
        num_return_sequences: chains per prompt.
        temperature: temperature of the sampling.
        seed: seed of the sampling.
        options: further options of :func:`graphprog.generate`.

    Raises:
        ProgramError: there is no parser for answers.

    Example:
        >>> parse = gp.Parse(r"(?s).+")
        >>> votes = gp.generation.self_consistent(
        ...     language, ["2 + 3 ="], num_return_sequences=3, max_new_tokens=2, parse=parse
        ... )
    """
    decoder = decoder_of(model, options.pop("use_cache", True))
    if decoder.prompt_format.parser is None and options.get("parse") is None:
        raise ProgramError(
            "there is no parser to read the answers to vote on",
            [
                'use align=gp.Parse(r"answer is (-?\\d+)", type=int) in the program',
                "pass parse=...",
            ],
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
    """Return a function from a text to the text that a model generates after it.

    Strategies in several stages take it, such as :class:`graphprog.text.LeastToMost`, and
    ``gp.text.ZeroShotCoT().run(query, gp.generation.as_callable(task))``.

    Args:
        model: as for :func:`graphprog.generate`; its cache is derived once.
        options: options of :func:`graphprog.generate`.

    Example:
        >>> ask = gp.generation.as_callable(language, max_new_tokens=4)
        >>> found = gp.text.ZeroShotCoT().run("Q: 2 + 3? A:", ask)
    """
    decoder = decoder_of(model, options.pop("use_cache", True))

    def ask(text: str) -> str:
        return generate(decoder, [text], **options)[0].text

    return ask
