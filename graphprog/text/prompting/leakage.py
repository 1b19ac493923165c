"""Find test examples among the demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphprog.errors import DataError
from graphprog.text.prompting.demonstrations import Demonstrations

_SHOWN = 5


def check_leakage(
    demonstrations: Demonstrations, test_examples: Sequence[Mapping[str, str]]
) -> None:
    """Refuse test examples that are demonstrations: their answers would be in the prompt.

    Two examples are the same if their fields before the answer are equal, ignoring case and
    whitespace; answers are not compared. Without such fields all queries are equal, and none leaks.

    Args:
        demonstrations: all examples that could be shown.
        test_examples: for each, at least the fields before the answer.

    Raises:
        DataError: names the examples that leak, or a test example that lacks a field; or they are
            not a list.

    Example:
        >>> shown = gp.Demonstrations([("warm", "good")], gp.Template("{text} -> {label}"))
        >>> gp.text.check_leakage(shown, [{"text": "dull"}])  # raises for {"text": "Warm"}
    """
    if isinstance(test_examples, str | Mapping):
        raise DataError("test examples must be a list, even of one", ["pass [example]"])
    template = demonstrations.template
    if not template.query_fields:
        return
    known: dict[tuple[str, ...], int] = {}
    for index, record in enumerate(demonstrations.records):
        known.setdefault(_key(record, template.query_fields), index)
    leaking: list[str] = []
    for index, example in enumerate(test_examples):
        query = template.query(example)
        twin = known.get(_key(example, template.query_fields))
        if twin is not None:
            leaking.append(f"test example {index} is demonstration {twin}: {query!r:.80}")
    if leaking:
        more = len(leaking) - _SHOWN
        raise DataError(
            f"{len(leaking)} of {len(test_examples)} test examples are demonstrations:\n  "
            + "\n  ".join([*leaking[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]),
            ["remove them from the demonstrations", "draw the demonstrations from other data"],
        )


def _key(example: Mapping[str, str], fields: Sequence[str]) -> tuple[str, ...]:
    return tuple(" ".join(example[field].casefold().split()) for field in fields)
