"""One family in a process of its own."""

from __future__ import annotations

import contextlib
import functools
import os
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch

from graphprog.errors import GraphprogError
from sweep.checks import CHECKS
from sweep.families.registry import family_named
from sweep.family import CAPTURED, Case, Family, measured
from sweep.outcome import NotApplicableError, Outcome, RefusedError
from sweep.subject import captured

MEMORY = 6 * 2**30
"""Bytes of its own that a process may have."""

LIMIT = 300
"""Characters kept of a reason."""


Message = tuple[Any, ...]
"""``("begin", check)``, ``("case", what, parameters)`` or ``("outcome", Outcome)``."""


def work(name: str, checks: tuple[str, ...], connection: Connection, loud: bool = False) -> None:
    """Examine one family and send what comes of it as it comes."""
    _confined()
    torch.set_num_threads(1)
    if not loud:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
    for message in examine(family_named(name), checks, loud):
        connection.send(message)


def examine(family: Family, checks: Iterable[str], loud: bool = False) -> Iterator[Message]:
    """Build, capture and check one family."""
    torch.backends.mha.set_fastpath_enabled(False)  # one kernel for the model and its graph
    case = yield from _attempt("build", lambda: _called(family), loud)
    if case is None:
        return
    weights = sum(parameter.numel() for parameter in case.model.parameters())
    yield ("case", case.what, weights)
    subject = yield from _attempt("capture", lambda: captured(case), loud)
    for check in checks if subject is not None else ():
        yield from _attempt(check, functools.partial(CHECKS[check], subject), loud)


def _called(family: Family) -> Case:
    """The family's model, which runs."""
    case = family.build()
    measured(case.model, case.call(8, CAPTURED[1]))  # of two rows, variances can be next to none
    return case


def _confined() -> None:
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def _attempt(check: str, action: Callable[[], Any], loud: bool) -> Generator[Message, None, Any]:
    """Run one check and record its outcome; return its result, or None if it failed."""
    yield ("begin", check)
    start = time.perf_counter()
    result, status, reason = None, "passed", ""
    try:
        result = action()
        reason = result if isinstance(result, str) else getattr(result, "note", "")
    except RefusedError as error:
        status, reason = "refused", one_line(error)
    except NotApplicableError as error:
        status, reason = "not applicable", one_line(error)
    except Exception as error:  # whatever it is, it is the outcome
        status, reason = "failed", f"{type(error).__name__}: {one_line(error)}"
        if loud:
            traceback.print_exc()
    seconds = round(time.perf_counter() - start, 2)
    yield ("outcome", Outcome(check, status, reason[:LIMIT], seconds))
    return result


def one_line(error: Exception) -> str:
    """What an error says, on one line; of a capture, what the first tracing said."""
    text = error.what if isinstance(error, GraphprogError) else str(error)
    marker = "non-strict tracing: "
    if marker in text:
        text = text.partition(marker)[2].partition("\n  strict tracing:")[0]
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return " ".join(lines[:3])
