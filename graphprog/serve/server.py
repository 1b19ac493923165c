"""The process: uvicorn, with a limit of time for the heads of requests, and a graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from graphprog.errors import BackendError
from graphprog.serve.limits import Limits
from graphprog.serve.logs import log

_GRACE = 30


class LimitedProtocol(H11Protocol):
    """A connection that is closed where there are too many, or a head does not arrive in time."""

    limits = Limits()
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for the first request."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse("429 Too Many Requests", "there are too many connections")
        else:
            self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of a head, or stop waiting because it has arrived."""
        super().data_received(data)
        if self._answers():
            self._stop()
        elif self._timer is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop to wait."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self.limits.seconds, self._close)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self._timer = None
        if self.transport.is_closing() or self._answers():
            return
        self._refuse("408 Request Timeout", "the head of the request came too late")

    def _answers(self) -> bool:
        """Whether a request is being answered."""
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def _refuse(self, status: str, what: str) -> None:
        body = json.dumps({"error": what})
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        self.transport.close()


class Server(uvicorn.Server):
    """A server that says where it listens, and whose end by a signal is no failure."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End gracefully at SIGINT and SIGTERM; at once at a second one."""
        before = {one: signal.signal(one, self._end) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _end(self, number: int, frame: Any) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets)
        for one in sockets or ():
            host, port = one.getsockname()[:2]
            log("listening", address=f"http://{host}:{port}")


def serve(app: Any, limits: Limits, host: str, port: int) -> None:
    """Answer requests until a signal comes; then finish those that have begun.

    Args:
        app: of :func:`graphprog.serve.app.application`.
        limits: of connections and time.
        host: address to listen at; ``127.0.0.1`` is this machine alone.
        port: 0 takes one that is free, which the log names.

    Raises:
        BackendError: the address is in use, or is not one of this machine.
    """
    protocol = type("Protocol", (LimitedProtocol,), {"limits": limits})
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise BackendError(
                f"cannot listen at {host}:{port}: {error}", ["--port 0, for one that is free"]
            ) from error
        Server(config).run(sockets=[listener])
