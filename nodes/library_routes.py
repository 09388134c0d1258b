"""The concept library on the host's own server, for the panel."""

from __future__ import annotations

import asyncio

from .library_answers import Request, answer
from .shelf import SHELF

PREFIX = "/ice/library"


def serve() -> None:
    """Adds the addresses to the host's server; without a running one nobody asks."""
    from aiohttp import web
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is None:
        return

    async def reply(request: web.Request) -> web.Response:
        asked = Request(
            method="DELETE" if request.method == "DELETE" else "GET",
            path=request.match_info.get("path", ""),
            query=tuple((str(name), str(text)) for name, text in request.query.items()),
            known=request.headers.get("If-None-Match", ""),
        )
        # The library is read from files: not on the loop that serves everybody.
        told = await asyncio.to_thread(answer, SHELF, asked)
        return web.Response(body=told.body, status=told.status, content_type=told.kind, headers=told.headers)

    for address in (PREFIX, f"{PREFIX}/"):
        server.routes.get(address)(reply)
    server.routes.get(PREFIX + "/{path:.+}")(reply)
    server.routes.delete(PREFIX + "/{path:.+}")(reply)
