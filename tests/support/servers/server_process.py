"""A server as a process of its own, on this machine."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.environments import ROOT

_NUMBERS = itertools.count()
TOKEN = "a secret of this test"


class ServerProcess:
    """A process of ``graphprog serve``, and the lines of its log."""

    def __init__(self, folder: Path, *words: str, token: str = TOKEN) -> None:
        self.log = folder / f"server.{next(_NUMBERS)}.log"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRAPHPROG_TOKEN": token}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "graphprog", "serve", *words, "--port", "0"],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
            )

    def lines(self) -> list[dict[str, Any]]:
        """What the log says."""
        text = self.log.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def wait_until_it_listens(self) -> str:
        """Wait, and return the address."""
        for _ in range(1200):
            for line in self.lines():
                if line["event"] == "listening":
                    return str(line["address"])
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
                break
        raise AssertionError(self.log.read_text(encoding="utf-8"))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask the process to end; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextlib.contextmanager
def serving(folder: Path, *words: str) -> Iterator[tuple[str, ServerProcess]]:
    """An address, and the process that answers there while the block runs."""
    server = ServerProcess(folder, *words)
    try:
        yield server.wait_until_it_listens(), server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
