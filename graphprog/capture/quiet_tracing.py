"""Tracing without what PyTorch prints about failures, which our error says in fewer words."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

from graphprog.rewriting.fake_tracing import silence


@contextmanager
def quiet_tracing() -> Iterator[None]:
    """Keep back what PyTorch logs and prints while it traces; other output to stderr follows."""
    printed, partial = io.StringIO(), ""
    try:
        with silence(), redirect_stderr(printed):
            yield
    except Exception as error:
        partial = str(getattr(error, "partial_fx_graph", ""))  # torch.export prints it
        raise
    finally:
        rest = printed.getvalue()
        sys.stderr.write(rest.replace(f"{partial}\n", "") if partial else rest)
