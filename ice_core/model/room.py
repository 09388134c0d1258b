"""How much a text encoder reads of a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ice_core.model.backbone import Backbone

PIECES = 75
"""Of a prompt at most: what CLIP's text encoders take, without start and end."""


def pieces(backbone: Backbone, text: str) -> int:
    """How many pieces the encoder that makes most of a text makes of it."""
    return max(map(len, backbone.word_rows(text).values())) if text.strip() else 0


def with_room(backbone: Backbone, room: int, groups: Iterable[Sequence[str]]) -> list[str]:
    """The words of the first groups that together have at most `room` pieces, up to one that does not fit."""
    kept: list[str] = []
    for words in groups:
        room -= sum(pieces(backbone, word) for word in words)
        if room < 0:
            break
        kept += words
    return kept
