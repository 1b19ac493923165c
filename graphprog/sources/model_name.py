"""Names of models: ``scheme:rest#option,option=value``."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Collection, Mapping

from graphprog.errors import CaptureError

FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
"""``package.module:factory``."""


@dataclasses.dataclass(frozen=True)
class ModelName:
    """A name in its parts.

    Attributes:
        text: the name as it was given.
        scheme: the part before the first colon, such as ``timm``.
        rest: what the scheme's loader reads.
        options: what stands after ``#``, by name; the value of a bare word is empty.
    """

    text: str
    scheme: str
    rest: str
    options: Mapping[str, str]

    def require_options(self, known: Collection[str]) -> None:
        """Check that the options are known.

        Raises:
            CaptureError: one is not; lists those that are.
        """
        for option in self.options:
            if option not in known:
                raise CaptureError(
                    f"{self.text}: unknown option #{option}{nearest(option, known)}",
                    [f"{self.scheme}: names take #{', #'.join(known)}" if known else "no options"],
                )


def parse_name(text: str) -> ModelName:
    """Take a name apart; a path without a scheme has the scheme of its suffix, such as ``pt2``."""
    place, _, after = text.partition("#")
    scheme, colon, rest = place.partition(":")
    if not colon or "/" in scheme or "\\" in scheme or "." in scheme or len(scheme) == 1:
        scheme, rest = place.rpartition(".")[2] if "." in place else "", place
        if FACTORY.fullmatch(place):
            scheme = "python"
    options = dict(_option(part) for part in after.split(",") if part) if scheme else {}
    if scheme == "safetensors":  # what follows is the factory
        options = {"factory": after} if after else {}
    return ModelName(text, scheme, rest, options)


def _option(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip()


def nearest(word: str, known: Collection[str]) -> str:
    """Return ``; did you mean ...?`` for a word like a known one, else nothing."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""
