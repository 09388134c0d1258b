"""The model families that can be used, and which of them a wire holds."""

from __future__ import annotations

from typing import Any

from ice_core.errors import IceError

from . import stable_diffusion_1, stable_diffusion_2, stable_diffusion_xl
from .family import ONLY, Family

FAMILIES: tuple[Family, ...] = (
    stable_diffusion_xl.FAMILY,
    stable_diffusion_2.FAMILY,
    stable_diffusion_1.FAMILY,
)
"""In the order in which they are asked: the first ones take models of the host's own classes, the last one
any other U-Net that is told nothing but text."""


def family_of_model(model: Any) -> Family:
    """The family of the host's MODEL. Raises IceError where it is none of ours."""
    for family in FAMILIES:
        if family.recognises(model):
            return family
    raise IceError(f"the model is of the family {type(model.model.model_config).__name__}; {ONLY}")


def family_of_clip(clip: Any) -> Family:
    """The family of the host's CLIP. Raises IceError where it is none of ours."""
    keys = set(clip.tokenize(""))
    for family in FAMILIES:
        if family.tokens == keys:
            return family
    raise IceError(f"the CLIP holds the text encoders {', '.join(sorted(keys))}; {ONLY}")
