"""Demonstrations before a query: in-context learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from graphprog.errors import DataError, ProgramError
from graphprog.spec.checks import require_choice, require_integer, require_text
from graphprog.spec.registry import spec
from graphprog.text.prompting import selection
from graphprog.text.prompting.part import TextPart
from graphprog.text.prompting.template import Template
from graphprog.text.prompting.window import Window


@dataclass(frozen=True)
class Rendered:
    """A query after its demonstrations.

    Attributes:
        prefix: the demonstrations, each followed by the separator; empty without any.
        query: the text after them, which ends where its answer begins.
        used: index of every demonstration shown, in order.
        dropped: number of demonstrations that did not fit the window.

    Example:
        >>> shown = gp.Demonstrations([("warm", "good")], gp.Template("{text} -> {label}"))
        >>> rendered = shown.render({"text": "funny"})
        >>> rendered.query, rendered.used
        ('funny ->', (0,))
    """

    prefix: str
    query: str
    used: tuple[int, ...]
    dropped: int

    @property
    def text(self) -> str:
        """The whole text: ``prefix`` and ``query``."""
        return self.prefix + self.query


@spec("demonstrations")
@dataclass(frozen=True)
class Demonstrations(TextPart):
    """Demonstrations: examples with answers, shown before a query (Brown et al., NeurIPS 2020).

    ``Demonstrations([{"text": "7 2", "label": "9"}, ...], Template("{text} ={label}"))``. With
    answers worked out step by step this is chain of thought (Wei et al., NeurIPS 2022); with the
    nearest examples for each query, the nearest last, it is the selection of Liu et al. (DeeLIO
    2022).

    Attributes:
        examples: a mapping of field to text each; stored as tuples of texts in the order of
            ``template.fields``.
        template: the text of one example.
        separator: between two demonstrations, and between the last one and the query.
        order: ``given``; ``random``, one order for all queries, by the seed; or ``nearest``, an
            order per query with the most similar example last.
        count: number of demonstrations shown: the first of the order, or the most similar for
            ``nearest``. None shows all.
        balanced: whether to show equally many of each label (the template's last field): the first
            ones of each, or the most similar for ``nearest``.
        seed: of the random order.
        limit: maximum number of tokens of demonstrations, query and answer together, in a compiled
            program; demonstrations that do not fit are dropped whole. None drops none.
        reserve: tokens of the limit reserved for the answer; for the query and its answer if the
            demonstrations are kept as a prefix.
        kept: see :class:`graphprog.text.TextPart`; the ``nearest`` order is always kept as text.

    Example:
        >>> template = gp.Template("{text} -> {label}")
        >>> shown = gp.Demonstrations([("warm", "good"), ("dull", "bad")], template, separator="; ")
        >>> shown.render({"text": "funny"}).text
        'warm -> good; dull -> bad; funny ->'
    """

    examples: Sequence[Mapping[str, str] | tuple[str, ...]]
    template: Template
    separator: str = "\n\n"
    order: Literal["given", "random", "nearest"] = "given"
    count: int | None = None
    balanced: bool = False
    seed: int = 0
    limit: int | None = None
    reserve: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.template, Template):
            raise ProgramError(
                f"{self.kind}: template must be a Template, not {self.template!r:.60}"
            )
        given: object = self.examples
        if not isinstance(given, list | tuple):
            raise ProgramError(
                f"{self.kind}: examples must be a list of mappings, not {given!r:.60}"
            )
        require_text(self.kind, "separator", self.separator, blank=True)
        require_choice(self.kind, "order", self.order, ("given", "random", "nearest"))
        require_integer(self.kind, "seed", self.seed, 0)
        if self.limit is not None:
            Window(self.limit, len, self.reserve)
        elif self.reserve:
            raise ProgramError(f"{self.kind}: reserve is {self.reserve}, but there is no limit")
        if not isinstance(self.balanced, bool):
            raise ProgramError(f"{self.kind}: balanced must be a bool, not {self.balanced!r}")
        rows = tuple(self._row(number, example) for number, example in enumerate(self.examples))
        object.__setattr__(self, "examples", rows)
        if self.count is not None:
            require_integer(self.kind, "count", self.count, 0)
            if self.count > len(rows):
                raise ProgramError(
                    f"{self.kind}: count is {self.count}, but there are {len(rows)} examples"
                )
        try:
            self._chosen(range(len(rows)))
        except DataError as error:
            raise ProgramError(f"{self.kind}: {error.what}", error.remedies) from error

    def _row(self, number: int, example: Mapping[str, str] | tuple[str, ...]) -> tuple[str, ...]:
        fields = self.template.fields
        if isinstance(example, list | tuple):
            if len(example) != len(fields):
                raise ProgramError(
                    f"{self.kind}: example {number} has {len(example)} texts, but the template has "
                    f"{len(fields)} fields: {', '.join(fields)}"
                )
            example = dict(zip(fields, example, strict=True))
        try:
            self.template.render(example)
        except DataError as error:
            raise ProgramError(
                f"{self.kind}: example {number}: {error.what}", error.remedies
            ) from error
        return tuple(example[name] for name in fields)

    @property
    def records(self) -> tuple[dict[str, str], ...]:
        """The examples as mappings of field to text."""
        fields = self.template.fields
        return tuple(dict(zip(fields, row, strict=True)) for row in self.examples)

    def render(
        self,
        query: Mapping[str, str],
        *,
        embed: selection.Embed | None = None,
        window: Window | None = None,
    ) -> Rendered:
        """Render one query; see :meth:`render_all`."""
        return self.render_all([query], embed=embed, window=window)[0]

    def render_all(
        self,
        queries: Sequence[Mapping[str, str]],
        *,
        embed: selection.Embed | None = None,
        window: Window | None = None,
    ) -> list[Rendered]:
        """Render queries with their demonstrations; examples are embedded once for all queries.

        Args:
            queries: for each, a text for every field before the answer.
            embed: maps n texts to an array [n, d], whose cosine similarity orders the examples;
                used by the ``nearest`` order only, on queries and on examples without answers.
            window: demonstrations that do not fit are dropped whole, starting with the first one
                shown, which is the least similar in the ``nearest`` order. If balanced, the
                dropped one has a label that has the most demonstrations.

        Raises:
            DataError: a query lacks a field, ``embed`` does not return an array [n, d], or the
                window is too small even without demonstrations.
            ProgramError: the ``nearest`` order has no ``embed``.
        """
        texts = [self.template.query(query) for query in queries]
        orders = self._orders(texts, embed)
        return [self.fitted(text, order, window) for text, order in zip(texts, orders, strict=True)]

    def fixed(self, window: Window | None = None) -> Rendered:
        """Render the demonstrations that are the same for all queries, with an empty query.

        Args:
            window: as in :meth:`render_all`, with the queries as part of its reserve.

        Raises:
            DataError: the window is too small even without demonstrations.
            ProgramError: the order is ``nearest``, which depends on the query.
        """
        (order,) = self._orders([""], None)
        return self.fitted("", order, window)

    def _orders(self, texts: list[str], embed: selection.Embed | None) -> list[list[int]]:
        """Indices of the examples shown for each query, in order."""
        count = len(self.examples)
        if self.order != "nearest":
            fixed = selection.shuffled(count, self.seed) if self.order == "random" else range(count)
            return [self._chosen(fixed)] * len(texts)
        if embed is None:
            raise ProgramError(
                f"{self.kind}: the nearest order needs an embedding",
                ["pass embed=, a function from a list of n texts to an array [n, d]"],
            )
        if not texts:
            return []
        own = [self.template.query(record) for record in self.records]
        vectors = selection.embedded(embed, own + texts)
        found = (selection.nearest_last(vectors[:count], query) for query in vectors[count:])
        return [self._chosen(order[::-1])[::-1] for order in found]

    def _chosen(self, order: Sequence[int]) -> list[int]:
        """Choose the examples to show from an order of all, preferred ones first."""
        if not self.balanced:
            return list(order[: self.count])
        found = selection.balanced([self._labels[index] for index in order], self.count)
        return [order[place] for place in found]

    def fitted(self, query: str, order: Sequence[int], window: Window | None) -> Rendered:
        """Put demonstrations before a text, and drop some until the whole fits the window.

        Args:
            query: the text after them.
            order: index of every demonstration, in order.
            window: as in :meth:`render_all`.

        Raises:
            DataError: the window is too small even without demonstrations.
        """
        used = list(order)
        while True:
            prefix = "".join(self._shown[index] for index in used)
            if window is None or window.holds(prefix + query):
                return Rendered(prefix, query, tuple(used), len(order) - len(used))
            if not used:
                raise window.overflow(query)
            labels = [self._labels[index] for index in used]
            del used[selection.first_dropped(labels, self.balanced)]

    @cached_property
    def _shown(self) -> tuple[str, ...]:
        return tuple(self.template.render(record) + self.separator for record in self.records)

    @cached_property
    def _labels(self) -> tuple[str, ...]:
        label = self.template.label
        return tuple(record[label] for record in self.records)
