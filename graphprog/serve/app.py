"""The application: routers around one served model, and what becomes of errors."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from graphprog.errors import GraphprogError
from graphprog.serve.guard import Guard
from graphprog.serve.language import LanguageModel
from graphprog.serve.limits import RequestError
from graphprog.serve.logs import log
from graphprog.serve.protocols import completions, health, inference, predict, programs
from graphprog.serve.rows import RowModel
from graphprog.serve.served import Served
from graphprog.utils.version import __version__


def application(model: Served, token: str = "") -> Any:
    """Return the ASGI application that serves a model.

    Args:
        model: a :class:`RowModel` or a :class:`LanguageModel`.
        token: that clients must bring to add and remove programs; without one, nobody can.
    """

    @contextlib.asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        model.batcher.start()
        app.state.ready = True
        yield
        app.state.ready = False
        await model.batcher.close()
        log("stopped")

    app = FastAPI(title=f"graphprog: {model.name}", version=__version__, lifespan=running)
    app.state.ready = False
    app.include_router(health.router(model))
    app.include_router(programs.router(model, token))
    if isinstance(model, RowModel):
        app.include_router(predict.router(model))
        app.include_router(inference.router(model))
    if isinstance(model, LanguageModel):
        app.include_router(completions.router(model))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(GraphprogError, _refused)
    app.add_exception_handler(Exception, _failed)
    return Guard(app, model.limits, model.metrics)


def _response(request: Request, status: int, what: str, headers: Any = None) -> JSONResponse:
    """Return an error in the words of the protocol that the client speaks."""
    if request.url.path.startswith("/v2"):
        return JSONResponse({"error": what}, status, headers)
    kind = "invalid_request_error" if status < 500 else "server_error"
    content = {"error": {"message": what, "type": kind, "param": None, "code": None}}
    return JSONResponse(content, status, headers)


async def _invalid(request: Request, error: Any) -> JSONResponse:
    """Say which fields are wrong."""
    lines = [f"{'.'.join(map(str, one['loc'][:6]))}: {one['msg']}" for one in error.errors()[:8]]
    return _response(request, 400, "\n".join(lines))


async def _refused(request: Request, error: Any) -> JSONResponse:
    """Give the reason of a refusal."""
    if isinstance(error, HTTPException):
        return _response(request, error.status_code, str(error.detail), error.headers)
    status = error.status if isinstance(error, RequestError) else 400
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return _response(request, status, str(error), headers)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    """Log what went wrong here, and do not tell it."""
    log("error", logging.ERROR, path=request.url.path[:200], error=repr(error)[:500])
    return _response(request, 500, "the server failed; its log says where")
