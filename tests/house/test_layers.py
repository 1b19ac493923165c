"""Imports that `make lint` cannot judge: late ones, and those of what a package only shows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.environments import source_modules

OPTIONAL = {"matplotlib", "networkx", "sklearn", "torchmetrics"}
"""Libraries that are imported inside functions, because few calls need them."""

MODULES = source_modules()
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def late_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import that does not run when the module is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    attempts = [part for part in tree.body if isinstance(part, ast.Try)]  # versions of a library
    early = {id(one) for part in (*attempts, tree) for one in part.body}
    for node in ast.walk(tree):
        if id(node) in early or not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names or [alias.name for alias in node.names]:
            yield node.lineno, name


def test_only_optional_libraries_are_imported_late() -> None:
    found = [
        f"{module}:{line} {name}"
        for module in MODULES.keys() - PACKAGES
        for line, name in late_imports(MODULES[module])
        if name.partition(".")[0] not in OPTIONAL
    ]
    assert not found


def test_every_optional_library_is_used() -> None:
    found = {name.partition(".")[0] for path in MODULES.values() for _, name in late_imports(path)}
    assert found - {"graphprog"} == OPTIONAL


def test_a_module_imports_a_name_from_where_it_is_defined() -> None:
    """Not from the package that shows it, which imports much else."""
    found = []
    for module in MODULES.keys() - PACKAGES:
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in PACKAGES:
                shown = [
                    one.name for one in node.names if f"{node.module}.{one.name}" not in MODULES
                ]
                found += [f"{module}:{node.lineno} {name}" for name in shown]
    assert not found
