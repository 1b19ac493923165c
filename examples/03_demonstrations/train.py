"""Train the small model that is frozen afterwards, on mappings other than those of the test.

    python examples/03_demonstrations/train.py

An episode is a list of words with their letters, by a mapping that holds in this episode only, so
nothing but the lines before it tells the letter of a word. What a model can keep from one episode
to the next is which words go together.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from symbols import EACH, KINDS, LETTERS, SEPARATOR, TEMPLATE, WORDS, held_out

sys.path.append(str(Path(__file__).parent.parent))
import language_models

FOLDER = Path(__file__).parent / "outputs" / "model"
STEPS = 8000
EPISODES = 32
LINES = 24
FEW = 4


def tokenizer() -> Any:
    """One token a word with its colon, one a letter."""
    lines = [TEMPLATE.render({"word": word, "letter": LETTERS[0]}) for word in WORDS]
    lines += [TEMPLATE.render({"word": WORDS[0], "letter": letter}) for letter in LETTERS]
    return language_models.word_tokenizer([SEPARATOR.join(lines)])


def batches(tokens: Any, steps: int, seed: int) -> Iterator[language_models.Batch]:
    """Episodes without end, in which letters are to be predicted, and nothing else.

    Attention learns to look a word up where an episode has few words that come again and again,
    so training begins with ``FEW`` words an episode. From an eighth of the steps on they become
    more, and from a quarter on every other episode draws from all words.
    """
    generator = torch.Generator().manual_seed(seed)
    words, letters, line_end, begin = _pieces(tokens)
    step = 0
    while True:
        progress = min(1.0, max(0.0, 8 * step / steps - 1))
        most = FEW * (len(WORDS) / FEW) ** progress
        drawn, known = episodes(generator, LINES, most, every_other=progress == 1)
        rows = torch.stack([words[drawn], letters[known], line_end.expand_as(drawn)], 2)
        ids = torch.cat([begin.expand(EPISODES, 1), rows.flatten(1)], 1)
        targets = torch.full_like(ids, -100)
        targets[:, 2::3] = ids[:, 2::3]
        yield ids, targets
        step += 1


def episodes(
    generator: torch.Generator, lines: int, most: float, every_other: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of words and of their letters, int64 [episodes, lines] each.

    Args:
        generator: draws them.
        lines: of an episode.
        most: different words of an episode; the number is drawn from 2 on, small ones as likely as
            great ones by order of magnitude.
        every_other: every other episode draws from all words.
    """
    mapping = torch.randint(len(LETTERS), (EPISODES, len(KINDS)), generator=generator)
    while (taken := held_out(mapping)).any():
        again = torch.randint(len(LETTERS), (int(taken.sum()), len(KINDS)), generator=generator)
        mapping[taken] = again
    count = 2 * (most / 2) ** torch.rand(EPISODES, 1, generator=generator)
    if every_other:
        count[::2] = len(WORDS)
    own = torch.rand(EPISODES, len(WORDS), generator=generator).argsort(1)
    places = torch.rand(EPISODES, lines, generator=generator) * count
    words = own.gather(1, places.long().clamp(max=len(WORDS) - 1))
    return words, mapping.gather(1, words // EACH)


def _pieces(tokens: Any) -> tuple[torch.Tensor, ...]:
    """Tokens of the words, of the letters, of the end of a line, of the beginning."""

    def one(text: str) -> int:
        (number,) = tokens(text, add_special_tokens=False)["input_ids"]
        return int(number)

    words = [one(TEMPLATE.query({"word": word})) for word in WORDS]
    example = {"word": WORDS[0]}
    letters = [one(TEMPLATE.continuation(example | {"letter": letter})) for letter in LETTERS]
    single = [one(SEPARATOR)], [tokens.bos_token_id]
    return tuple(torch.tensor(numbers) for numbers in (words, letters, *single))


def main(steps: int = STEPS, seed: int = 0, folder: Path = FOLDER) -> Path:
    """Train and keep a model."""
    tokens = tokenizer()
    return language_models.trained(folder, tokens, batches(tokens, steps, seed), steps, seed)


if __name__ == "__main__":
    main()
