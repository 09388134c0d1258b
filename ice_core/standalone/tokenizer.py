"""CLIP's byte-pair pieces, by open_clip's tokenizer: nothing to download."""

from __future__ import annotations

from functools import cache
from typing import Any

START, END = 49406, 49407
"""Ids of CLIP's start and end tokens; Stable Diffusion 1 also pads with the end token."""


@cache
def _tokenizer() -> Any:
    # Here and not above: open_clip takes seconds to import, and most errors are found before it is needed.
    from open_clip import SimpleTokenizer

    return SimpleTokenizer()


def piece_ids(text: str) -> list[int]:
    """Token ids of `text` as CLIP cuts it, without start and end."""
    return list(_tokenizer().encode(text))
