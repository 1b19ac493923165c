"""Check the layers of graphprog in its installed shape: the contracts in pyproject.toml.

import-linter reads them; type-only imports and imports inside functions count. What it cannot
express is checked here: no circle of imports among modules.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import grimp
import networkx as nx
from installed import ROOT, in_checkout, installed_tree


def circles(tree: Path) -> list[list[str]]:
    """Sets of modules that import one another, directly or not."""
    sys.path.insert(0, str(tree))
    imports = grimp.build_graph("graphprog", cache_dir=None)
    graph: nx.DiGraph[str] = nx.DiGraph()
    for module in imports.modules:
        for imported in imports.find_modules_directly_imported_by(module):
            graph.add_edge(module, imported)
    return [sorted(found) for found in nx.strongly_connected_components(graph) if len(found) > 1]


def main() -> int:
    """Run both checks; 0 where they hold."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    command += [str(ROOT / "pyproject.toml"), "--no-cache"]
    with installed_tree() as tree:
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        done = subprocess.run(
            command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
        found = circles(tree)
    print(in_checkout(done.stdout), end="")
    for circle in found:
        print(f"A circle of imports: {', '.join(circle)}")
    return int(done.returncode != 0 or bool(found))


if __name__ == "__main__":
    sys.exit(main())
