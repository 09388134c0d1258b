"""Which text encoders a model family has."""

from __future__ import annotations

from collections.abc import Mapping

_FAMILIES: tuple[tuple[str, str, Mapping[str, int]], ...] = (
    ("Stable Diffusion 1.x", "stable-diffusion-v1", {"clip_l": 768}),
    ("Stable Diffusion 2.x", "stable-diffusion-v2-768-v", {"clip_h": 1024}),
    ("Stable Diffusion XL", "stable-diffusion-xl-v1-base", {"clip_l": 768, "clip_g": 1280}),
)
"""Model families, their model-spec names, and the widths of their text encoders, which tell what a token was
made for."""


def family_of(widths: Mapping[str, int]) -> str:
    """What rows of these widths by text encoder belong to: "Stable Diffusion 2.x (clip_h x 1024)"."""
    shown = ", ".join(f"{name} x {width}" for name, width in widths.items())
    family = next((name for name, _, known in _FAMILIES if known == dict(widths)), "a model of its own kind")
    return f"{family} ({shown})"


def architecture_of(widths: Mapping[str, int]) -> str:
    """The model-spec name of the family that rows of these widths belong to; "unknown" for others."""
    return next((name for _, name, known in _FAMILIES if known == dict(widths)), "unknown")
