"""Words of six kinds, and lessons in which every kind has a letter of its own."""

from __future__ import annotations

import dataclasses
import random

import torch

import graphprog as gp

KINDS = {
    "animals": "wolf horse tiger rabbit goat whale eagle frog",
    "fruits": "apple pear plum lemon cherry grape peach mango",
    "tools": "hammer saw drill wrench chisel pliers ruler shovel",
    "clothes": "shirt coat scarf glove sock hat skirt boot",
    "vehicles": "car bus train tram truck boat bicycle ship",
    "instruments": "piano violin flute drum harp trumpet guitar cello",
}
WORDS = [word for words in KINDS.values() for word in words.split()]
EACH = len(WORDS) // len(KINDS)
LETTERS = "ABCDEFGH"

TEMPLATE = gp.Template("{word}: {letter}")
SEPARATOR = "\n"

Mapping = tuple[int, ...]
"""Number of a letter for every kind; two kinds may share one."""


@dataclasses.dataclass(frozen=True)
class Lesson:
    """A mapping to be taught.

    Attributes:
        mapping: letters of the kinds.
        shown: words of the demonstrations, int numbers; fewer are the first ones.
        asked: words of the queries, none of which is shown.
        wrong: letters for the words shown that have nothing to do with the mapping.
    """

    mapping: Mapping
    shown: tuple[int, ...]
    asked: tuple[int, ...]
    wrong: tuple[int, ...]

    def demonstrations(self, count: int, at_random: bool = False) -> gp.Demonstrations:
        """The first words with their letters, or with letters drawn at random."""
        right = tuple(self.mapping[word // EACH] for word in self.shown)
        letters = self.wrong if at_random else right
        examples = [
            {"word": WORDS[word], "letter": LETTERS[letter]}
            for word, letter in zip(self.shown[:count], letters, strict=False)
        ]
        return gp.Demonstrations(examples, TEMPLATE, SEPARATOR)

    @property
    def queries(self) -> list[str]:
        """The words asked."""
        return [WORDS[word] for word in self.asked]

    @property
    def answers(self) -> torch.Tensor:
        """Number of the letter of every query, int64 [N]."""
        return torch.tensor([self.mapping[word // EACH] for word in self.asked])

    def knowable(self, count: int) -> float:
        """Accuracy of one who knows the kinds: sure where the query's is shown, else a guess."""
        kinds = {word // EACH for word in self.shown[:count]}
        known = sum(word // EACH in kinds for word in self.asked) / len(self.asked)
        return known + (1 - known) / len(LETTERS)


def lesson(generator: random.Random, shown: int) -> Lesson:
    """A lesson on a mapping that was kept out of training."""
    while True:
        mapping = tuple(generator.randrange(len(LETTERS)) for _ in KINDS)
        if held_out(torch.tensor(mapping)):
            break
    words = generator.sample(range(len(WORDS)), len(WORDS))
    wrong = tuple(generator.randrange(len(LETTERS)) for _ in range(shown))
    return Lesson(mapping, tuple(words[:shown]), tuple(words[shown:]), wrong)


def held_out(mappings: torch.Tensor) -> torch.Tensor:
    """Whether mappings int64 [..., kinds] belong to the test: one in eight, scattered evenly."""
    places = len(LETTERS) ** torch.arange(len(KINDS))
    number = (mappings * places).sum(-1)
    return number * 2654435761 % 2**32 < 2**29
