"""The nodes of this pack."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .composer import ConceptComposer
from .demo import DemoModel, DemoScene
from .files import LoadConcepts, SaveConcepts
from .graph import remember
from .library import LibraryConcept
from .library_routes import serve as serve_library
from .placeholders import serve
from .reader import AttributeReader
from .retriever import ConceptRetriever
from .segmentor import AttentionSegmentor
from .trainer import IntrinsicTrainer


class IceExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        _watch_submissions()
        serve()
        serve_library()
        return [
            DemoModel,
            DemoScene,
            ConceptRetriever,
            AttentionSegmentor,
            AttributeReader,
            IntrinsicTrainer,
            ConceptComposer,
            SaveConcepts,
            LoadConcepts,
            LibraryConcept,
        ]


def _watch_submissions() -> None:
    """Lets validation look at the whole graph; without a running server nothing is submitted."""
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is not None and remember not in server.on_prompt_handlers:
        server.add_on_prompt_handler(remember)
