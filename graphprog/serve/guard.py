"""What every request passes: limits of body and time, metrics, and a line in the log."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from graphprog.serve.limits import Limits
from graphprog.serve.logs import log
from graphprog.serve.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application around another.

    A request is refused with 413 if its body is too large, 408 if it comes too slowly, and 429 if
    the bodies of all requests need too much memory.

    Args:
        app: the application inside.
        limits: of requests.
        metrics: where they are counted.
    """

    def __init__(self, app: Application, limits: Limits, metrics: Metrics) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._held = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(scope, self._limits)
        start = time.monotonic()

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                found = (b"x-request-id", request.id.encode())
                message["headers"] = [*message.get("headers", ()), found]
                if request.cut:  # what is left of the body is not read
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        async def received() -> Message:
            message = await request.received(receive)
            self._hold(request, len(message.get("body", b"")))
            return message

        try:
            await self._app(scope, received, sent)
        finally:
            self._held -= request.held
            self._metrics.bodies.set(self._held)
            self._tell(request, scope, time.monotonic() - start)

    def _hold(self, request: _Request, size: int) -> None:
        """Count a part of a body; refuse it where all bodies are too much."""
        if self._held + size > self._limits.memory:
            request.cut = True
            raise HTTPException(
                429, "the server holds as many requests as it can", {"Retry-After": "1"}
            )
        self._held += size
        request.held += size
        self._metrics.bodies.set(self._held)

    def _tell(self, request: _Request, scope: Scope, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(route, request.status).inc()
        self._metrics.latency.labels(route).observe(seconds)
        client = scope.get("client") or ("", 0)
        log(
            "request",
            id=request.id,
            client=client[0],
            method=scope["method"],
            path=scope["path"][:200],
            status=request.status,
            milliseconds=round(seconds * 1e3, 2),
            bytes=request.held,
        )


class _Request:
    """The state of a request while its body is read."""

    def __init__(self, scope: Scope, limits: Limits) -> None:
        headers = dict(scope["headers"])
        self.id = secrets.token_hex(8)
        self.status = 499  # as nginx logs clients that went away
        self.held = 0
        self.cut = False
        self._limits = limits
        self._whole = False
        self._until = time.monotonic() + limits.seconds
        length = headers.get(b"content-length", b"0")
        self._length = int(length) if length.isdigit() else 0

    async def received(self, receive: Receive) -> Message:
        """Return the next part of the body.

        Raises:
            HTTPException: the body is too large or too slow.
        """
        if self._whole:  # the client's leaving is waited for without a limit
            return await receive()
        if max(self._length, self.held) > self._limits.body:
            raise self._refused(413, f"a request may have {self._limits.body} bytes")
        try:
            left = self._until - time.monotonic()
            message = await asyncio.wait_for(receive(), max(left, 0))
        except TimeoutError as error:
            raise self._refused(
                408, f"the request did not arrive within {self._limits.seconds:g} s"
            ) from error
        size = self.held + len(message.get("body", b""))
        if size > self._limits.body:
            raise self._refused(413, f"a request may have {self._limits.body} bytes")
        self._whole = not message.get("more_body", False)
        return message

    def _refused(self, status: int, what: str) -> HTTPException:
        self.cut = True
        return HTTPException(status, what)
