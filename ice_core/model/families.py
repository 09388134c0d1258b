"""Which models a token fits, as its widths tell."""

from __future__ import annotations

from collections.abc import Mapping

ARCHITECTURES: Mapping[frozenset[tuple[str, int]], str] = {
    frozenset({("clip_l", 768)}): "stable-diffusion-v1",
    frozenset({("clip_h", 1024)}): "stable-diffusion-v2-768-v",
    frozenset({("clip_l", 768), ("clip_g", 1280)}): "stable-diffusion-xl-v1-base",
}
"""Model-spec names by the widths of text encoders, which tell what a token was made for."""
_FAMILIES = {
    "stable-diffusion-v1": "Stable Diffusion 1.x",
    "stable-diffusion-v2-768-v": "Stable Diffusion 2.x",
    "stable-diffusion-xl-v1-base": "Stable Diffusion XL",
}


def family_of(widths: Mapping[str, int]) -> str:
    """What rows of these widths by text encoder belong to: "Stable Diffusion 2.x (clip_h x 1024)"."""
    shown = ", ".join(f"{name} x {width}" for name, width in widths.items())
    architecture = ARCHITECTURES.get(frozenset(widths.items()), "")
    return f"{_FAMILIES.get(architecture, 'a model of its own kind')} ({shown})"
