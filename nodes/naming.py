"""Which words a retriever may name things with: what it looks for, and what can be known before it runs."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ice_core.localization.retrieval.dictionary import Vocabulary

BUNDLED, OPEN_CLIP, CONNECTED = "bundled demo CLIP", "open_clip model", "connected CLIP_VISION"
"""Sources of the ICE Concept Retriever."""


def vocabulary_of(source: str, text: str) -> Vocabulary:
    """The user's own words, else those that belong to the source. Raises IceError where `text` holds none."""
    from ice_core.localization.retrieval.dictionary import Vocabulary
    from ice_core.world.bundled import world_vocabulary

    if text.strip():
        return Vocabulary.from_text(text)
    return world_vocabulary() if source == BUNDLED else Vocabulary.built_in()


@lru_cache(maxsize=8)
def stems(source: str, text: str) -> frozenset[str]:
    """What objects may be called before they are counted: "ball" of "ball-2". Raises as `vocabulary_of`."""
    from ice_core.concepts import unique_key
    from ice_core.localization.naming import NAMELESS

    vocabulary = vocabulary_of(source, text)
    names = [word for word, is_name in zip(vocabulary.words, vocabulary.nameable, strict=True) if is_name]
    return frozenset(unique_key(name, {}) for name in (*names, NAMELESS))
