"""Write docs/methods.md, the table of published methods: python -m tools.methods_table."""

from __future__ import annotations

from pathlib import Path

import graphprog as gp

PAGE = Path(__file__).resolve().parents[1] / "docs" / "methods.md"

_HEAD = """# Methods

Published methods that can be used by name, with their coordinates in the survey *Neural Network
Reprogrammability* (arXiv:2506.04650). `gp.methods.table()` returns the same records;
`graphprog methods show lora` prints one, with options and an example. A method returns
manipulations, for `gp.Program([*gp.methods.lora(rank=8)], align=...)`. It finds its places by
structure: `attention[*].q_proj` names [layers](guide.md#interfaces) of any transformer, and
`text.attention[*].q_proj` those of one tower.

d is a width, n a number of tokens, r a rank, L a number of layers, K a number of classes. Protocols
are those of the authors, not of the default training loop.

"""


def page() -> str:
    """Return the text of the page."""
    return f"{_HEAD}{gp.methods.table()}\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
