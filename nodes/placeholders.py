"""What the page asks while the composer's prompt is typed: the names there are, and what is wrong."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

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
    loaded_folder,
    offered,
)

ROUTE, THUMBNAIL = "/ice/placeholders", "/ice/thumbnail"


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


def thumbnails(graph: Graph, node_id: str, on_disk: OnDisk) -> dict[str, str]:
    """Name in braces -> where its picture is, for concepts that lie on the disk."""
    inputs = inputs_of_node(graph, node_id, COMPOSER)
    links = {alias: inputs[alias] for alias in ALIASES if alias in inputs}
    found = {}
    for alias, link in links.items():
        if (folder := loaded_folder(link, graph)) is None:
            continue
        for known in learned_names(link, on_disk, graph) or ():
            shown = known.shown if len(links) == 1 else f"{alias}.{known.shown}"
            found[shown] = f"{THUMBNAIL}?{urlencode({'folder': folder, 'name': known.shown})}"
    return found


def serve() -> None:
    """Adds the addresses to the host's server; without a running one nobody asks."""
    from aiohttp import web
    from server import PromptServer

    from ice_core.files.images import media_type

    from .places import names_in, thumbnail
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
        return web.json_response(await asyncio.to_thread(told, graph, node, prompt))

    def told(graph: Graph, node: str, prompt: str) -> dict[str, Any]:
        on_disk = lru_cache(names_in)  # each folder is read once for both
        answered = answer(graph, node, prompt, on_disk, names_in_library)
        return {**answered, "thumbnails": thumbnails(graph, node, on_disk)}

    async def picture(request: web.Request) -> web.Response:
        folder, name = request.query.get("folder", ""), request.query.get("name", "")
        found = await asyncio.to_thread(thumbnail, folder, name)
        kind = media_type(found) if found else None
        if kind is None:
            return web.Response(status=404)
        headers = {"Cache-Control": "max-age=60", "X-Content-Type-Options": "nosniff"}
        return web.Response(body=found, content_type=kind, headers=headers)

    server.routes.post(ROUTE)(reply)
    server.routes.get(THUMBNAIL)(picture)
