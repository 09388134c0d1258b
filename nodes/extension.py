"""The nodes of this pack."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .demo import DemoScene


class IceExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [DemoScene]
