"""Health of the server, and its metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from graphprog.serve.served import Served
from graphprog.utils.version import __version__


def router(model: Served) -> APIRouter:
    """Return the routes ``/v2``, ``/v2/health/...`` and ``/metrics``."""
    routes = APIRouter(tags=["health"])

    @routes.get("/v2")
    async def server() -> dict[str, object]:
        """Name the server, and what it speaks."""
        extensions = ["binary_tensor_data", "classification", "model_repository"]
        return {"name": "graphprog", "version": __version__, "extensions": extensions}

    @routes.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        """Say that the process answers."""
        return {"live": True}

    @routes.get("/v2/health/ready")
    async def ready(request: Request) -> dict[str, bool]:
        """Say whether requests are computed; 503 before and after."""
        if not request.app.state.ready:
            raise HTTPException(503, "not ready")
        return {"ready": True}

    @routes.get("/metrics")
    async def metrics() -> Response:
        """Return metrics in the format of Prometheus."""
        return Response(model.metrics.text(), media_type="text/plain; version=0.0.4")

    return routes
