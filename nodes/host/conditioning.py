"""Prompts with learned tokens for the host's own sampling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ice_core.errors import IceError
from ice_core.model.backbone import Prompt, Token
from ice_core.model.encoders import family_of

from .families import family_of_clip


def check_tokens(clip: Any, tokens: Iterable[Token], origin: str = "") -> None:
    """Raise IceError where tokens were learned for text encoders that this CLIP does not have.

    origin: what is known of the model they were learned with, for people.
    """
    here = dict(family_of_clip(clip).text(clip).widths)
    for token in tokens:
        widths = {encoder: rows.shape[-1] for encoder, rows in token.rows.items()}
        if widths != here:
            raise IceError(
                f"the token {token.name} was learned for {family_of(widths)}"
                f"{f' ({origin})' if origin else ''}; the connected CLIP is of {family_of(here)}: use it "
                "with the model it was learned for"
            )


def encode_conditioning(clip: Any, prompt: Prompt) -> Any:
    """The host's CONDITIONING of a prompt; see Text.conditioning."""
    return family_of_clip(clip).text(clip).conditioning(prompt)
