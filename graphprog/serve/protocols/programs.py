"""Programs that are listed, added, replaced and removed."""

from __future__ import annotations

import secrets

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from graphprog.serve.logs import log
from graphprog.serve.served import ProgramInfo, Served


def router(model: Served, token: str) -> APIRouter:
    """Return the routes ``/v1/programs``.

    Args:
        model: whose programs they are.
        token: that changes need; empty forbids them.
    """
    routes = APIRouter(tags=["programs"])

    def require_token(request: Request) -> None:
        if not token:
            raise HTTPException(403, "this server was started without a token: nothing changes")
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        right = secrets.compare_digest(given.strip().encode(), token.encode())
        if kind.lower() != "bearer" or not right:
            raise HTTPException(401, "a token is needed", {"WWW-Authenticate": "Bearer"})

    @routes.get("/v1/programs")
    async def listed() -> list[ProgramInfo]:
        """List the programs."""
        return list(model.programs)

    @routes.get("/v1/programs/{name}")
    async def shown(name: str) -> ProgramInfo:
        """Show a program."""
        return model.program(name)

    @routes.put("/v1/programs/{name}")
    async def put(name: str, request: Request, response: Response) -> ProgramInfo:
        """Add or replace a program: the body is a file that ``gp.save`` wrote."""
        require_token(request)
        info, new = await model.put(name, await request.body())
        response.status_code = 201 if new else 200
        log("program", name=name, sha256=info.sha256, new=new)
        return info

    @routes.delete("/v1/programs/{name}", status_code=204)
    async def remove(name: str, request: Request) -> None:
        """Remove a program."""
        require_token(request)
        model.remove(name)
        log("program removed", name=name)

    return routes
