"""Where tests and their helpers stand."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from tests.support.environments import ROOT

TESTS = ROOT / "tests"
FILES = [path for path in TESTS.rglob("*.py") if "node_modules" not in path.parts]


def _imported(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]


def test_no_test_file_is_imported() -> None:
    """What several files need stands in tests/models or tests/support."""
    found = {path: name for path in FILES for name in _imported(path) if ".test_" in name}
    assert not found


def test_folders_can_be_taken_in_at_a_glance() -> None:
    sizes = Counter(path.parent for path in FILES if path.name != "__init__.py")
    assert {str(folder): size for folder, size in sizes.items() if size > 14} == {}


def test_folders_of_tests_are_folders_of_the_package() -> None:
    """Beside them stand the helpers, whole uses of the package, and checks of the checkout."""
    beside = {"models", "support", "text", "data", "javascript", "end_to_end", "house"}
    roots = (ROOT / "graphprog", ROOT)
    for folder in {path.parent.relative_to(TESTS) for path in FILES} - {Path()}:
        if folder.parts[0] not in beside:
            assert any((root / folder).is_dir() for root in roots), folder
