"""Templates: texts with named fields, of which one is the answer."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graphprog.errors import DataError, ProgramError
from graphprog.spec.registry import Spec, spec

_SPACES = " \t"


@spec("template")
@dataclass(frozen=True)
class Template(Spec):
    """Template that renders an example as text: ``Template("{text} ->{label}")``.

    A name in braces is a field; ``{{`` and ``}}`` are literal braces. A demonstration is the whole
    text, a query only the part before the answer. Spaces right before the answer belong to it: most
    tokenizers join a space to the word that follows, so a model has never seen text that ends in
    one. Both ``"{text} -> {label}"`` with ``good`` and ``"{text} ->{label}"`` with `` good`` give
    the query ``... ->`` and the answer `` good``; if both have a space, one is kept.

    Attributes:
        text: the text with its fields; the answer appears once, other fields any number of times.
        answer: the field before which a query ends; by default the last one. With chain of thought
            it is the first field that the model writes:
            ``Template("{question} {steps} So it is {label}.", answer="steps")``.

    Example:
        >>> template = gp.Template("Review: {text} Sentiment: {label}")
        >>> template.query({"text": "a warm film"})  # up to the answer
        'Review: a warm film Sentiment:'
    """

    text: str
    answer: str = ""

    def __post_init__(self) -> None:
        for name in ("text", "answer"):
            if not isinstance(getattr(self, name), str):
                raise ProgramError(
                    f"{self.kind}: {name} must be text, not {getattr(self, name)!r:.60}"
                )
        fields = [field for _, field in _split(self.text) if field is not None]
        if not fields:
            raise ProgramError(
                f"{self.kind}: {self.text!r:.80} has no field",
                ['name the fields in braces: Template("{text} ->{label}")'],
            )
        answer = self.answer or fields[-1]
        if fields.count(answer) != 1:
            raise ProgramError(
                f"{self.kind}: the answer {answer!r} appears {fields.count(answer)} times in "
                f"{self.text!r:.80}; its fields are {_listed(fields)}",
                ["name the answer exactly once in the text"],
            )
        object.__setattr__(self, "answer", answer)
        pieces, margin, _ = self._parts()
        if not pieces and not margin.strip(_SPACES):
            raise ProgramError(
                f"{self.kind}: there is no text before the answer {answer!r}: a query would be "
                "empty",
                ["put a field or words before it", "choose another field: answer=..."],
            )

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of all fields, in order of first appearance."""
        names = (field for _, field in _split(self.text) if field is not None)
        return tuple(dict.fromkeys(names))

    @property
    def query_fields(self) -> tuple[str, ...]:
        """Names of the fields before the answer, which a query must give."""
        before, _, _ = self._parts()
        return tuple(dict.fromkeys(field for _, field in before if field is not None))

    @property
    def label(self) -> str:
        """Name of the last field, which is the label of an example."""
        return self.fields[-1]

    def render(self, example: Mapping[str, str]) -> str:
        """Render the whole text of an example: query and answer.

        Args:
            example: a text for every field.

        Raises:
            DataError: a field is missing, unknown, or no text.
        """
        query, answer = self._halves(example)
        return query + answer

    def query(self, example: Mapping[str, str]) -> str:
        """Render the text up to the answer, without spaces at its end.

        Args:
            example: a text for every field before the answer; other fields of the template are
                ignored.

        Raises:
            DataError: a field is missing, unknown, or no text.
        """
        self._check(example, self.query_fields)
        before, literal, _ = self._parts()
        return (_fill(before, example) + literal).rstrip(_SPACES)

    def continuation(self, example: Mapping[str, str]) -> str:
        """Render the text that a model should write after the query, with its leading space.

        Args:
            example: a text for every field.

        Raises:
            DataError: a field is missing, unknown, or no text.
        """
        return self._halves(example)[1]

    def spaced(self, answer: str) -> str:
        """Add the space that the template has before the answer, if any."""
        _, literal, _ = self._parts()
        space = literal[len(literal.rstrip(_SPACES)) :]
        return space + answer.lstrip(_SPACES) if space else answer

    def _halves(self, example: Mapping[str, str]) -> tuple[str, str]:
        self._check(example, self.fields)
        before, literal, after = self._parts()
        opened = _fill(before, example) + literal
        query = opened.rstrip(_SPACES)
        space, answer = opened[len(query) :], example[self.answer]
        return query, space + (answer.lstrip(_SPACES) if space else answer) + _fill(after, example)

    def _parts(self) -> tuple[list[_Piece], str, list[_Piece]]:
        """Pieces before the answer, the literal text right before it, and pieces after it."""
        pieces = _split(self.text)
        place = next(i for i, (_, field) in enumerate(pieces) if field == self.answer)
        return pieces[:place], pieces[place][0], pieces[place + 1 :]

    def _check(self, example: Mapping[str, str], needed: Iterable[str]) -> None:
        if not isinstance(example, Mapping):
            raise DataError(
                f"an example must map fields to texts, not be a {type(example).__name__}",
                [f"give {{{', '.join(f'{name!r}: ...' for name in self.fields)}}}"],
            )
        unknown = [str(name) for name in example if name not in self.fields]
        if unknown:
            raise DataError(
                f"an example has {_listed(unknown)}, which is not a field of {self.text!r:.80}; "
                f"its fields are {_listed(self.fields)}",
                ["correct the name", "leave out fields that the template does not have"],
            )
        missing = [name for name in needed if name not in example]
        if missing:
            raise DataError(f"an example has no {_listed(missing)}, a field of {self.text!r:.80}")
        for name, value in example.items():
            if not isinstance(value, str):
                raise DataError(
                    f"field {name!r} of an example is {value!r:.60}, a {type(value).__name__}, "
                    "not text",
                    ["convert it with str(...)"],
                )


_Piece = tuple[str, str | None]


def _split(text: str) -> list[_Piece]:
    """Literal texts, each with the field that follows it, or None at the end."""
    try:
        found = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ProgramError(
            f"template {text!r:.80}: {error}", ["write {{ and }} for literal braces"]
        ) from error
    for _, field, form, conversion in found:
        if field is not None and (not field.isidentifier() or form or conversion):
            raise ProgramError(
                f"template {text!r:.80}: a field must be a plain name, as in {{text}}",
                ["write {{ and }} for literal braces", "format values before rendering"],
            )
    return [(literal, field) for literal, field, _, _ in found]


def _fill(pieces: Iterable[_Piece], example: Mapping[str, str]) -> str:
    return "".join(literal + ("" if field is None else example[field]) for literal, field in pieces)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name)[:60] for name in names)
