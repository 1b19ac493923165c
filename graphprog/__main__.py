"""``python -m graphprog``: the command line."""

from __future__ import annotations

import sys

from graphprog.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
