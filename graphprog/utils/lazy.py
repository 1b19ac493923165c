"""Lazy packages: names are imported at their first use."""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import sys
from types import ModuleType
from typing import Any


class LazyPackage(ModuleType):
    """A package that imports its public names, listed under ``TYPE_CHECKING``, when used."""

    __all__: list[str]
    __places__: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        if name not in self.__places__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        found = load(self.__places__[name])
        setattr(self, name, found)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        # the import system binds a submodule in its package; a public name of the same name is
        # kept: gp.capture is the function, not the package that defines it
        submodule = isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}"
        if not submodule or ":" not in self.__places__.get(name, ""):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return [*self.__all__, *(["__version__"] if "__version__" in self.__dict__ else [])]


def load(place: str) -> Any:
    """Import ``"module:attribute"``, or the module itself for ``"module"``."""
    module, _, attribute = place.partition(":")
    found = importlib.import_module(module)
    if attribute and not hasattr(found, attribute):
        return importlib.import_module(f"{module}.{attribute}")
    return getattr(found, attribute) if attribute else found


def import_when_used(package: str) -> None:
    """Make a package lazy; type checkers read the imports that it defers.

    Args:
        package: ``__name__`` of the package, which imports all public names as themselves
            (``from a.b import Name as Name``) in one block under ``if TYPE_CHECKING``.
    """
    module = sys.modules[package]
    loader = module.__spec__.loader if module.__spec__ else None
    assert isinstance(loader, importlib.abc.InspectLoader)
    places: dict[str, str] = {}
    for statement in ast.parse(loader.get_source(package) or "").body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            for inner in statement.body:
                assert isinstance(inner, ast.ImportFrom)
                separator = "." if inner.module == package else ":"
                for name in inner.names:
                    places[name.name] = f"{inner.module}{separator}{name.name}"
    module.__dict__.update(__all__=sorted(places), __places__=places)
    module.__class__ = LazyPackage
