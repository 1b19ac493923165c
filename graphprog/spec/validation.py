"""What a field of a spec may hold, judged by its annotation: files and text are not trusted."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union

from graphprog.errors import FileError, ProgramError


def check_names(cls: type[Any], fields: Mapping[str, Any]) -> None:
    """Fail unless the class of a spec declares every field given.

    Raises:
        FileError: an unknown field.
    """
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    for name in fields:
        if name not in known:
            raise FileError(
                f"{cls.kind}: unknown field {name!r:.60}; known: {', '.join(known) or 'none'}",
                ["correct the name", "update graphprog, if a newer one wrote this"],
            )


def check_types(cls: type[Any], fields: Mapping[str, Any]) -> None:
    """Fail unless every field given holds what its annotation says.

    Raises:
        FileError: a value of another type.
        ProgramError: an annotation of the class means nothing at run time.
    """
    hints = annotations_of(cls)
    for name, value in fields.items():
        if not _suits(value, hints[name]):
            expected = next(item.type for item in dataclasses.fields(cls) if item.name == name)
            raise FileError(f"{cls.kind}: {name} is {value!r:.60}, expected {expected}")


def annotations_of(cls: type[Any]) -> dict[str, Any]:
    """The annotations of a class, resolved.

    Raises:
        ProgramError: a name in them cannot be resolved.
    """
    try:
        return typing.get_type_hints(cls)
    except NameError as error:
        raise ProgramError(
            f"{cls.__module__}.{cls.__qualname__}: an annotation cannot be resolved: {error}",
            ["import what it names outside `if TYPE_CHECKING`"],
        ) from error


def _suits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _suits(value, arguments[0])
    if origin in (Union, types.UnionType):
        return any(_suits(value, option) for option in arguments)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in arguments)
    if origin is not None:
        return isinstance(value, origin) and _items_suit(value, arguments)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return hint is Any or isinstance(value, type(None) if hint is None else hint)


def _items_suit(value: Any, hints: tuple[Any, ...]) -> bool:
    """Whether the items of a tuple suit ``tuple[X, ...]``, ``tuple[X, Y]`` or ``Sequence[X]``."""
    if not isinstance(value, tuple):
        return False
    if len(hints) == 1 or (len(hints) == 2 and hints[1] is Ellipsis):
        return all(_suits(item, hints[0]) for item in value)
    return len(value) == len(hints) and all(map(_suits, value, hints))
