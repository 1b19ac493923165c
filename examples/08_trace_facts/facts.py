"""Capitals: the facts that are asked, those that the model knows, and pairs of them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import graphprog as gp

PROMPT = "The capital of {} is"
TOKENS = 5
"""All prompts have as many tokens, the place being the fourth."""

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Portugal": "Lisbon",
    "Austria": "Vienna",
    "Poland": "Warsaw",
    "Hungary": "Budapest",
    "Greece": "Athens",
    "Sweden": "Stockholm",
    "Norway": "Oslo",
    "Denmark": "Copenhagen",
    "Finland": "Helsinki",
    "Ireland": "Dublin",
    "Belgium": "Brussels",
    "Russia": "Moscow",
    "Ukraine": "Kyiv",
    "Romania": "Bucharest",
    "Bulgaria": "Sofia",
    "Serbia": "Belgrade",
    "Croatia": "Zagreb",
    "Albania": "Tirana",
    "Iceland": "Reykjavik",
    "Estonia": "Tallinn",
    "Latvia": "Riga",
    "Lithuania": "Vilnius",
    "Turkey": "Ankara",
    "Cyprus": "Nicosia",
    "Japan": "Tokyo",
    "China": "Beijing",
    "India": "New Delhi",
    "Pakistan": "Islamabad",
    "Bangladesh": "Dhaka",
    "Nepal": "Kathmandu",
    "Thailand": "Bangkok",
    "Vietnam": "Hanoi",
    "Indonesia": "Jakarta",
    "Malaysia": "Kuala Lumpur",
    "Philippines": "Manila",
    "Iran": "Tehran",
    "Iraq": "Baghdad",
    "Syria": "Damascus",
    "Lebanon": "Beirut",
    "Jordan": "Amman",
    "Qatar": "Doha",
    "Afghanistan": "Kabul",
    "Azerbaijan": "Baku",
    "Egypt": "Cairo",
    "Libya": "Tripoli",
    "Morocco": "Rabat",
    "Sudan": "Khartoum",
    "Ethiopia": "Addis Ababa",
    "Kenya": "Nairobi",
    "Uganda": "Kampala",
    "Rwanda": "Kigali",
    "Zambia": "Lusaka",
    "Angola": "Luanda",
    "Somalia": "Mogadishu",
    "Nigeria": "Abuja",
    "Ghana": "Accra",
    "Senegal": "Dakar",
    "Mali": "Bamako",
    "Canada": "Ottawa",
    "Mexico": "Mexico City",
    "Cuba": "Havana",
    "Jamaica": "Kingston",
    "Panama": "Panama City",
    "Haiti": "Port-au-Prince",
    "Peru": "Lima",
    "Chile": "Santiago",
    "Brazil": "Brasília",
    "Argentina": "Buenos Aires",
    "Australia": "Canberra",
    "Scotland": "Edinburgh",
    "Wales": "Cardiff",
    "England": "London",
    "Texas": "Austin",
    "California": "Sacramento",
    "Florida": "Tallahassee",
    "Colorado": "Denver",
    "Massachusetts": "Boston",
    "Georgia": "Atlanta",
    "Arizona": "Phoenix",
    "Utah": "Salt Lake City",
    "Hawaii": "Honolulu",
    "Tennessee": "Nashville",
    "Bavaria": "Munich",
}
"""Capitals of countries and of their parts; what the model says decides which are used."""


@dataclasses.dataclass(frozen=True)
class Fact:
    """A fact that the model knows.

    Attributes:
        place: such as France.
        capital: such as Paris.
        answer: first token of the capital, as the model writes it.
    """

    place: str
    capital: str
    answer: int

    @property
    def prompt(self) -> str:
        """The text that the model continues with the capital."""
        return PROMPT.format(self.place)


def known(graph: gp.Graph) -> list[Fact]:
    """The facts that the model continues rightly, as its most probable text."""
    sized = {
        place: capital
        for place, capital in CAPITALS.items()
        if len(graph.tokenizer(PROMPT.format(place))["input_ids"]) == TOKENS
    }
    prompts = [PROMPT.format(place) for place in sized]
    written = gp.generate(graph, prompts, max_new_tokens=5, use_cache=False, progress=False)
    return [
        Fact(place, capital, text.ids[0])
        for (place, capital), text in zip(sized.items(), written, strict=True)
        if _says(text.text, capital)
    ]


def _says(text: str, capital: str) -> bool:
    """Whether a text begins with a word: as far as it was written, and not inside a longer one."""
    text = text.strip()
    return text.startswith(capital) and not text[len(capital) : len(capital) + 1].isalpha()


def pairs(facts: Sequence[Fact], count: int, seed: int) -> list[tuple[Fact, Fact]]:
    """As many facts, each with another one that the model answers otherwise.

    Raises:
        ValueError: there are fewer.
    """
    if len(facts) < count:
        raise ValueError(f"the model knows {len(facts)} of the facts; {count} are needed")
    generator = random.Random(seed)
    chosen = generator.sample(list(facts), count)
    while True:
        others = generator.sample(chosen, count)
        found = list(zip(chosen, others, strict=True))
        if all(one.answer != other.answer for one, other in found):
            return found
