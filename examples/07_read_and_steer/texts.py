"""Texts of a sentiment: pairs for the direction, other texts for the judge, and prompts."""

from __future__ import annotations

import itertools
import random

THINGS = (
    *("film", "hotel", "meal", "concert", "book", "flight", "party", "lesson"),
    *("garden", "match", "museum", "holiday", "speech", "game", "picnic", "play"),
)
WORDS = (
    *(("wonderful", "terrible"), ("delightful", "dreadful"), ("brilliant", "awful")),
    *(("superb", "horrible"), ("excellent", "miserable"), ("lovely", "nasty")),
)
ENDINGS = (
    ("I loved every minute of it", "I hated every minute of it"),
    ("I would do it again at once", "I would never do it again"),
    ("I was happy for days", "I was upset for days"),
    ("we all smiled on the way home", "we all complained on the way home"),
)

PROMPTS = (
    *("I saw the new film yesterday, and I thought", "We moved into the new office, and"),
    *("My neighbor got a dog, and now", "The weather on our trip was", "I tried the soup, and it"),
    *("When I think of my school, I", "The first day at the new job was", "The train arrived, and"),
    *("My sister played the piano, and", "After the long walk we felt", "The letter said that"),
    *("The children came home, and they", "The new phone turned out to be", "Our guide was"),
    *(
        "I read her story. It",
        "The house at the corner is",
        "Dinner with his family was",
    ),
    *("I called the shop, and the man", "The city in winter is", "My first impression was"),
)
VALIDATION = 5
"""So many prompts, the first ones, choose place and strength; the others are the test."""

_OTHER = (
    *(("Thank you, that was kind and helpful", "That was rude and unhelpful"),),
    *(("What a beautiful morning", "What an ugly morning"),),
    *(("She is proud and full of hope", "She is ashamed and without hope"),),
    *(("It works perfectly, well done", "It is broken again, a waste of money"),),
    *(("The service was friendly and quick", "The service was slow and unfriendly"),),
    *(("He laughed and felt at ease", "He cried and felt afraid"),),
    *(("They won, and everybody cheered", "They lost, and everybody left angry"),),
    *(("The room was clean and bright", "The room was dirty and dark"),),
    *(("I feel healthy and strong", "I feel sick and weak"),),
    *(("It tastes fresh and sweet", "It tastes rotten and bitter"),),
    *(("We became good friends", "We became enemies"),),
    *(("The plan was a great success", "The plan was a complete failure"),),
)
_FRAMES = (
    "{}.",
    "{}!",
    "Honestly, {}.",
    "{}, as always.",
    "In the end: {}.",
    "{}, my friend said.",
)


def pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """Different pairs of texts that differ in their sentiment, positive first."""
    every = list(itertools.product(THINGS, WORDS, ENDINGS))
    chosen = random.Random(seed).sample(every, count)
    return [
        tuple(f"The {thing} was {words[side]}, and {ending[side]}." for side in range(2))
        for thing, words, ending in chosen
    ]


def other_texts() -> list[tuple[str, int]]:
    """Texts that share no sentence with the pairs, and 1 where they are positive."""
    return [
        (frame.format(pair[side]), 1 - side)
        for frame in _FRAMES
        for pair in _OTHER
        for side in range(2)
    ]
