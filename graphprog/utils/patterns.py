"""Regular expressions that files bring along, matched by RE2 in time linear in the text.

Python's own engine tries alternatives one after the other, so that a pattern such as ``(a+)+b``
takes years over thirty letters. RE2 advances all of them together; what needs more than that,
references and looks around, it refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import re2

MAX_PATTERN = 2_000

_QUIET = re2.Options()
_QUIET.log_errors = False  # the refusal says it


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> Any:
    """Compile a regular expression in RE2's syntax.

    Raises:
        ValueError: what is wrong with it.
    """
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"longer than {MAX_PATTERN} characters")
    try:
        return re2.compile(pattern, _QUIET)
    except re2.error as error:
        reason = error.args[0]
        raise ValueError(reason.decode() if isinstance(reason, bytes) else reason) from error
    except UnicodeEncodeError as error:
        raise ValueError("it is not Unicode text") from error


def full_match(pattern: str, text: str) -> bool:
    """Whether the whole text matches.

    Raises:
        ValueError: what is wrong with the pattern.
    """
    return compile_pattern(pattern).fullmatch(_unicode(text)) is not None


def find_all(pattern: str, text: str) -> Iterator[str]:
    """Find the texts that match, one after the other: the only group, or the whole match.

    Raises:
        ValueError: what is wrong with the pattern.
    """
    for match in compile_pattern(pattern).finditer(_unicode(text)):
        yield match[match.re.groups] or ""


def _unicode(text: str) -> str:
    """Return the text without lone surrogates, which RE2 does not read."""
    return text.encode(errors="replace").decode()
