"""Docstrings as mkdocstrings reads them.

Roles such as :func:`graphprog.fit` become links to public names, or code; a single example is a
section of examples.
"""

from __future__ import annotations

import re
from functools import cache

import griffe
from public import public_names

EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?([\w.]+)`")


@cache
def _places() -> dict[str, str]:
    return {name.replace("gp.", "graphprog.", 1): place for name, place in public_names().items()}


def _link(match: re.Match[str]) -> str:
    name = match.group(1)
    place = _places().get(name)
    shown = f"`{name.replace('graphprog.', 'gp.', 1)}`"
    return f"[{shown}][{place}]" if place else shown


class Roles(griffe.Extension):
    """Rewrites every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            text = ROLE.sub(_link, obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub("Examples:", text)
