"""The decode loop: token by token, for rows that run together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from graphprog.errors import BackendError
from graphprog.generation.decoder import Decoder
from graphprog.generation.sampling import Sampling
from graphprog.generation.streaming import Text


def decode(
    decoder: Decoder,
    inputs: Mapping[str, torch.Tensor],
    texts: Sequence[Text],
    sampling: Sampling,
    limit: int,
    tick: Callable[[int], None],
) -> None:
    """Generate texts, each to its end.

    Args:
        decoder: gives logits.
        inputs: inputs by name, with R rows.
        texts: receive the tokens; the same number per row, grouped by row.
        sampling: chooses the next token.
        limit: maximum number of tokens of a text.
        tick: called after each token with the number of unfinished texts.

    Raises:
        BackendError: the logits are not numbers.
    """
    roles = decoder.roles
    logits, cache = decoder.advance(inputs)
    count = len(inputs[roles.tokens])
    rows = torch.arange(count).repeat_interleave(len(texts) // count)
    generators = sampling.generators([text.row for text in texts])
    going = list(range(len(texts)))
    if len(texts) > count:
        inputs, cache = select(inputs, rows), decoder.select(cache, rows)
        logits = logits[rows.to(logits.device)]
    for step in range(limit):
        scores = last_scores(logits)
        drawn = [generators[number] for number in going]
        chosen = sampling.choose(inputs[roles.tokens].cpu(), scores, drawn)
        shares = scores.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
        for number, token, share in zip(going, chosen.tolist(), shares.tolist(), strict=True):
            texts[number].add(token, share)
        kept = [at for at, number in enumerate(going) if not texts[number].ended]
        tick(len(kept))
        if not kept or step + 1 == limit:
            return
        inputs = roles.grown(inputs, chosen)
        if len(kept) < len(going):
            rows = torch.tensor(kept)
            inputs = select(inputs, rows)
            cache = decoder.select(cache, rows)
            going = [going[at] for at in kept]
        logits, cache = decoder.advance(inputs, cache)


def select(inputs: Mapping[str, torch.Tensor], rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Select rows of inputs, in the given order."""
    return {name: value[rows.to(value.device)] for name, value in inputs.items()}


def last_scores(logits: torch.Tensor) -> torch.Tensor:
    """Return the logits of the last token [B, V], float32, on the CPU.

    Raises:
        BackendError: a logit is not a number.
    """
    scores = logits[:, -1].detach().to("cpu", torch.float32)
    if bool(scores.isnan().any()):
        raise BackendError(
            "the logits are not numbers (NaN): no token can be chosen",
            ["check the weights of the source model", "run the model in float32"],
        )
    return scores
