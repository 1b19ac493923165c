"""Many families, a process each, with a time limit."""

from __future__ import annotations

import dataclasses
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from sweep.outcome import Outcome, Record

SECONDS = 120.0
"""How long a family may take."""


@dataclasses.dataclass
class Account:
    """Results of a family's checks so far."""

    name: str
    kind: str
    what: str = ""
    parameters: int = 0
    check: str = "build"
    begun: float = dataclasses.field(default_factory=time.monotonic)
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)

    def take(self, message: tuple[Any, ...]) -> None:
        """Note a message."""
        if message[0] == "begin":
            self.check, self.begun = message[1], time.monotonic()
        elif message[0] == "case":
            self.what, self.parameters = message[1:]
        else:
            self.outcomes.append(message[1])
            self.check = ""

    def record(self, stopped: str = "") -> Record:
        """What came of it; ``stopped`` says what ended a check that was begun and not done."""
        outcomes = list(self.outcomes)
        if self.check:
            seconds = round(time.monotonic() - self.begun, 2)
            outcomes.append(Outcome(self.check, "failed", stopped, seconds))
        return Record(self.name, self.kind, self.what, self.parameters, tuple(outcomes))


@dataclasses.dataclass
class Running:
    """A process at work."""

    account: Account
    process: BaseProcess
    connection: Connection
    started: float = dataclasses.field(default_factory=time.monotonic)


def run(
    families: Sequence[tuple[str, str]],
    checks: tuple[str, ...],
    jobs: int = 1,
    seconds: float = SECONDS,
    loud: bool = False,
) -> Iterator[Record]:
    """Run families, given by name and kind, at most ``jobs`` at a time; records as they come."""
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(["sweep.warm"])
    waiting = list(reversed(families))
    running: list[Running] = []
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(_started(context, *waiting.pop(), checks, loud))
        wait([item.connection for item in running], timeout=1.0)
        for item in list(running):
            stopped = _stopped(item, seconds)
            if stopped is not None:
                running.remove(item)
                yield item.account.record(stopped)


def _started(context: Any, name: str, kind: str, checks: tuple[str, ...], loud: bool) -> Running:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(name, checks, theirs, loud), daemon=True)
    process.start()
    theirs.close()
    return Running(Account(name, kind), process, ours)


def target(name: str, checks: tuple[str, ...], connection: Connection, loud: bool) -> None:
    """Runs in the process; imports late, so that the parent needs none of the libraries."""
    import sweep.warm  # noqa: F401
    from sweep.worker import work

    work(name, checks, connection, loud)


def _stopped(item: Running, seconds: float) -> str | None:
    """Take what a process has sent; why it is over, or None while it is not."""
    try:
        while item.connection.poll():
            item.account.take(item.connection.recv())
    except EOFError:
        item.process.join()
        return f"the process ended with status {item.process.exitcode}"
    if time.monotonic() - item.started > seconds:
        item.process.kill()
        item.process.join()
        return f"took more than {seconds:.0f} s"
    return None
