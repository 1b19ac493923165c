"""Type-check graphprog in its installed shape: ``mypy --package graphprog``.

Reports the paths of the checkout. Arguments are handed on to mypy.
"""

from __future__ import annotations

import subprocess
import sys

from installed import ROOT, in_checkout, installed_tree


def main(arguments: list[str]) -> int:
    """Run mypy; its exit status."""
    command = [sys.executable, "-m", "mypy", "--package", "graphprog"]
    command += ["--config-file", str(ROOT / "pyproject.toml")]
    command += ["--cache-dir", str(ROOT / ".mypy_cache"), *arguments]
    with installed_tree() as tree:
        done = subprocess.run(command, cwd=tree, stdout=subprocess.PIPE, text=True, check=False)
    print(in_checkout(done.stdout), end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
