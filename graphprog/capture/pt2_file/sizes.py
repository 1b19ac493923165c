"""Symbolic sizes in a ``.pt2`` file, which PyTorch evaluates as Python: a parser for them alone."""

from __future__ import annotations

import re
from typing import Any

from graphprog.errors import FileError
from graphprog.ir.graph_file.sizes import check_bounds

SYMBOL = re.compile(r"[a-z]{1,4}[0-9]{1,6}")
"""Names of symbols; those of PyTorch are a kind and a number."""

_NAMES = {
    "Add": "+",
    "Mul": "*",
    "Pow": "**",
    "PowByNatural": "**",
    "Max": "max",
    "Min": "min",
    "And": "and",
    "Or": "or",
    **dict.fromkeys(
        (
            *("FloorDiv", "CleanDiv", "CeilDiv", "IntTrueDiv", "FloatTrueDiv", "Mod", "PythonMod"),
            *("ModularIndexing", "Where", "Identity", "ToFloat", "CeilToInt", "FloorToInt"),
            *("TruncToInt", "TruncToFloat", "RoundToInt", "Not", "Equality", "Unequality"),
            *("LessThan", "StrictLessThan", "GreaterThan", "StrictGreaterThan", "Rational"),
        ),
        "of",
    ),
}
_FLAGS = r"(?:, *[a-z]+=(?:True|False)){0,8}"
_TOKEN = re.compile(
    rf" *(?:Symbol\('(?P<symbol>{SYMBOL.pattern})'{_FLAGS}\)"
    r"|Integer\((?P<integer>-?[0-9]{1,19})\)|(?P<number>-?[0-9]{1,19})"
    r"|(?P<truth>true|false)|(?P<name>[A-Za-z]{1,24})\(|(?P<mark>[,)]))"
)
_LONGEST = 20_000
_HIGHEST_POWER = 8


def checked_size(text: Any) -> str:
    """Return the text of a size, after reading all of it as arithmetic over symbols.

    Raises:
        FileError: it is something else, or has more parts than the size of any model.
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise FileError(f"{text!r:.80} is not a size")
    # a list for each call that is open; the first holds the whole
    open_calls: list[list[Any]] = [["of"]]
    place, after_part = 0, False
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None or not _fits(token, after_part, open_calls):
            raise FileError(f"{text!r:.80} is not a size")
        after_part = _read(token, open_calls)
        place = token.end()
    if len(open_calls) != 1 or len(open_calls[0]) != 2 or not after_part:
        raise FileError(f"{text!r:.80} is not a size")
    tree = open_calls[0][1]
    check_bounds(tree)
    _check_powers(tree, text)
    return text


def _fits(token: re.Match[str], after_part: bool, open_calls: list[list[Any]]) -> bool:
    """Whether a token may follow: parts and commas take turns, inside of a call."""
    if token["mark"]:
        return after_part and len(open_calls) > 1
    if token["name"] and (token["name"] not in _NAMES or len(open_calls) > 64):
        return False
    return not after_part


def _read(token: re.Match[str], open_calls: list[list[Any]]) -> bool:
    """Add a token to the calls that are open; return whether a part is complete."""
    if token["name"]:
        open_calls.append([_NAMES[token["name"]]])
        return False
    if token["mark"] == ",":
        return False
    if token["mark"] == ")":
        call = open_calls.pop()
        open_calls[-1].append(call)
    elif token["symbol"] or token["truth"]:
        open_calls[-1].append(token["symbol"] or token["truth"])
    else:
        open_calls[-1].append(int(token["integer"] or token["number"]))
    return True


def _check_powers(tree: Any, text: str) -> None:
    """Check that powers are those of symbols or numbers, and small."""
    if not isinstance(tree, list):
        return
    for part in tree[1:]:
        _check_powers(part, text)
    if tree[0] != "**":
        return
    small = len(tree) == 3 and type(tree[2]) is int and -1 <= tree[2] <= _HIGHEST_POWER
    if not small or isinstance(tree[1], list):
        raise FileError(f"{text!r:.80} is not a size: a power is a small one of one symbol")
