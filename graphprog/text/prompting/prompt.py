"""The prompt of a compiled program: the text around queries, and its tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property

from graphprog.errors import DataError, ProgramError
from graphprog.text.prompting.demonstrations import Demonstrations, Rendered
from graphprog.text.prompting.instruction import Instruction
from graphprog.text.prompting.part import Kept, TextPart
from graphprog.text.prompting.selection import Embed
from graphprog.text.prompting.tokenizer import TextTokens, shared_start
from graphprog.text.prompting.window import Window

Query = str | Mapping[str, str]
"""A text for each field of the template before the answer; a plain text if there is no template,
or only one such field."""

_PROBES = ("a", "The", "B", "7", "(", "-", "é", "中", " a", "\na")


@dataclasses.dataclass(frozen=True)
class Prompt:
    r"""Instructions, demonstrations, and their tokenizer.

    Attributes:
        parts: text parts of the program.
        tokens: the tokenizer.
        answer: text in place of the answer; empty if the query ends before the answer.
        ends: whether special tokens follow a text as well.

    Example:
        >>> tokens = gp.text.TextTokens(tokenizer)
        >>> prompt = gp.text.Prompt((gp.Instruction("Be brief."),), tokens)
        >>> prompt.texts(["Is it warm?"])
        ['Be brief.\n\nIs it warm?']
    """

    parts: tuple[TextPart, ...]
    tokens: TextTokens
    answer: str = ""
    ends: bool = False

    def __post_init__(self) -> None:
        if sum(isinstance(part, Demonstrations) for part in self.parts) > 1:
            raise ProgramError(
                "a program cannot have several parts with demonstrations",
                ["put all examples into one gp.Demonstrations"],
            )
        if len(forms := {part.kept for part in self._leading}) > 1:
            raise ProgramError(
                "instruction and demonstrations are one text, but kept as "
                f"{' and as '.join(forms)}",
                [f"set kept={self._leading[0].kept!r} on all of them"],
            )

    @property
    def demonstrations(self) -> Demonstrations | None:
        """The part with demonstrations."""
        return next((part for part in self.parts if isinstance(part, Demonstrations)), None)

    def _instructions(self, place: str) -> list[Instruction]:
        found = [part for part in self.parts if isinstance(part, Instruction)]
        return [part for part in found if part.place == place]

    @property
    def _leading(self) -> list[TextPart]:
        """The leading parts that are not kept as text, in the order of the text."""
        shown = self.demonstrations
        found: list[TextPart] = []
        for part in [*self._instructions("before"), *([] if shown is None else [shown])]:
            if part.kept == "text" or (part is shown and shown.order == "nearest"):
                break
            found.append(part)
        return found

    @property
    def kept(self) -> Kept:
        """How the text before all queries is kept."""
        return self._leading[0].kept if self._leading else "text"

    @cached_property
    def shown(self) -> Rendered | None:
        """The demonstrations that are the same for all queries, if any."""
        part = self.demonstrations
        return None if part is None or part.order == "nearest" else part.fixed(self._window(part))

    @cached_property
    def prefix_ids(self) -> tuple[int, ...]:
        """Tokens that every text begins with and that the compiled program keeps as a prefix.

        Tokens that depend on the query after them are left to the query.
        """
        front = "".join(part.text + part.separator for part in self._front_kept)
        if self.demonstrations in self._leading and self.shown is not None:
            front += self.shown.prefix
        if not front:
            return ()
        return shared_start([self.tokens.opened(front + probe) for probe in self._probes()])

    @property
    def _front_kept(self) -> list[Instruction]:
        return [part for part in self._leading if isinstance(part, Instruction)]

    def _probes(self) -> list[str]:
        """Texts that may follow the shared prefix."""
        part = self.demonstrations
        if part is None:
            return list(_PROBES)
        fields = part.template.query_fields
        return [part.template.query(dict.fromkeys(fields, probe)) for probe in _PROBES]

    def texts(self, queries: Sequence[Query], embed: Embed | None = None) -> list[str]:
        """The whole text of each query, up to its answer.

        Args:
            queries: see :data:`Query`.
            embed: as for :meth:`Demonstrations.render_all`.

        Raises:
            DataError: there are no queries; one does not have the fields of the template, or is
                too long for the limit.
            ProgramError: the order of the demonstrations is ``nearest`` without ``embed``.
        """
        if isinstance(queries, str | Mapping):
            raise DataError("queries must be a list, even of one", ["call task.encode([query])"])
        if not queries:
            raise DataError("there are no queries")
        head = "".join(part.text + part.separator for part in self._instructions("before"))
        own = [self.asked(query) for query in queries]
        prefixes = self._prefixes(queries, own, embed)
        return [head + prefix + text for prefix, text in zip(prefixes, own, strict=True)]

    def _prefixes(self, queries: Sequence[Query], own: list[str], embed: Embed | None) -> list[str]:
        part = self.demonstrations
        if part is None:
            return [""] * len(queries)
        if part in self._leading:
            assert self.shown is not None
            return [self.shown.prefix] * len(queries)
        window = self._window(part)
        rows = part.render_all([self.record(query) for query in queries], embed=embed)
        if window is None:
            return [row.prefix for row in rows]
        return [
            part.fitted(text, row.used, window).prefix for text, row in zip(own, rows, strict=True)
        ]

    def _window(self, part: Demonstrations) -> Window | None:
        if part.limit is None:
            return None
        head = "".join(item.text + item.separator for item in self._instructions("before"))
        extra = len(self.tokens.back) if self.ends else 0
        return Window(
            part.limit, lambda text: len(self.tokens.opened(head + text)) + extra, part.reserve
        )

    def record(self, query: Query) -> dict[str, str]:
        """The fields of a query."""
        part = self.demonstrations
        assert part is not None
        if not isinstance(query, str):
            return dict(query)
        fields = part.template.query_fields
        if len(fields) != 1:
            raise DataError(
                f"a query is a plain text, but the template asks for {', '.join(fields) or 'none'}",
                [f"give {{{', '.join(f'{name!r}: ...' for name in fields)}}}"],
            )
        return {fields[0]: query}

    def asked(self, query: Query, answer: str = "") -> str:
        """The text of a query, with the instructions after it.

        Args:
            query: see :data:`Query`.
            answer: text in place of the answer, instead of :attr:`answer`.
        """
        answer = answer or self.answer
        part = self.demonstrations
        if part is not None:
            record, template = self.record(query), part.template
            if answer:
                text = template.render({**record, template.answer: answer})
            else:
                text = template.query(record)
        elif isinstance(query, str):
            text = query if answer else query.rstrip(" \t")
        else:
            raise DataError(
                "a query has fields, but the program has no template",
                ["give plain texts", "add gp.Demonstrations([], template) to the program"],
            )
        for instruction in self._instructions("after"):
            text = instruction.render(text)
        return text

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of texts without :attr:`prefix_ids`.

        Raises:
            DataError: the tokens of a text do not begin with the prefix, or a text is empty.
        """
        known = list(self.prefix_ids)
        after = list(self.tokens.back) if self.ends else []
        found = []
        for text in texts:
            whole = self.tokens.opened(text)
            if not whole:
                raise DataError("a query is an empty text, which has no tokens")
            if whole[: len(known)] != known or len(whole) == len(known):
                raise DataError(
                    f"before {text[-60:]!r} the prefix has other tokens than those compiled, so "
                    "the model would read another text",
                    [
                        "use a separator that ends in a line break",
                        "begin queries with a letter or a digit",
                        "set kept='text' on the text parts",
                    ],
                )
            found.append(whole[len(known) :] + after)
        return found
