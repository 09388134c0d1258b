"""What flows on the wires of this pack, and how its nodes describe themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

if TYPE_CHECKING:
    from ice_core.localization.retrieval.retriever import Retrieved, Retriever

CATEGORY = "ICE"

Words = io.Custom("ICE_WORDS")
"""FoundWords"""
Concepts = io.Custom("ICE_CONCEPTS")
"""ice_core.concepts.ConceptSet"""
Learned = io.Custom("ICE_LEARNED")
"""ice_core.concepts.LearnedConcepts"""


@dataclass(frozen=True)
class FoundWords:
    """Names for what a picture shows, best first, and the retriever that goes on finding them."""

    words: tuple[Retrieved, ...]
    retriever: Retriever


def schema(
    *, search_aliases: Sequence[str], shows_result: bool = False, rare: Sequence[str] = (), **rest: Any
) -> io.Schema:
    """A node's schema in this pack's category, with what older hosts do not know left out there.

    shows_result: its picture stays on the node when its outputs come from the cache; rare: inputs that most
    people leave alone, which newer pages fold away.
    """
    for given in rest["inputs"]:
        if given.id in rare:
            # Older hosts have no argument for it, but pass on what is put here.
            given.extra_dict["advanced"] = True
    newer: dict[str, Any] = {"search_aliases": list(search_aliases), "has_intermediate_output": shows_result}
    known = {field.name for field in dataclasses.fields(io.Schema)}
    return io.Schema(category=CATEGORY, **{k: v for k, v in newer.items() if k in known}, **rest)
