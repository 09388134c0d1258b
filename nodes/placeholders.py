"""What the page asks while the composer's prompt is typed: the names there are, and what is wrong."""

from __future__ import annotations

import asyncio
from typing import Any

from ice_core.errors import IceError

from .graph import (
    ALIASES,
    COMPOSER,
    Graph,
    InLibrary,
    OnDisk,
    check_prompt,
    inputs_of_node,
    learned_names,
    offered,
)

ROUTE = "/ice/placeholders"


def answer(
    graph: Graph, node_id: str, prompt: str, on_disk: OnDisk, in_library: InLibrary | None = None
) -> dict[str, Any]:
    """names: what may stand in braces, as far as the graph tells; problem: why a run would refuse the prompt,
    None where it would not."""
    inputs = inputs_of_node(graph, node_id, COMPOSER)
    sources = {
        alias: learned_names(inputs[alias], on_disk, graph, in_library)
        for alias in ALIASES
        if alias in inputs
    }
    try:
        check_prompt(prompt, sources)
        problem = None
    except IceError as error:
        problem = str(error)
    return {"names": offered(sources), "problem": problem}


def serve() -> None:
    """Adds the address to the host's server; without a running one nobody asks."""
    from aiohttp import web
    from server import PromptServer

    from .places import names_in
    from .shelf import names_in_library

    server = getattr(PromptServer, "instance", None)
    if server is None:
        return

    async def reply(request: web.Request) -> web.Response:
        asked = await request.json()
        graph, node, prompt = asked.get("graph"), asked.get("node"), asked.get("prompt")
        if not isinstance(graph, dict) or not isinstance(node, str) or not isinstance(prompt, str):
            return web.json_response({"error": "graph, node and prompt are needed"}, status=400)
        # Names on disk are read from files: not on the loop that serves everybody.
        told = await asyncio.to_thread(answer, graph, node, prompt, names_in, names_in_library)
        return web.json_response(told)

    server.routes.post(ROUTE)(reply)
