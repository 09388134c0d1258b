"""Which text encoders a model family has."""

from __future__ import annotations

from collections.abc import Mapping

_FAMILIES: tuple[tuple[str, Mapping[str, int]], ...] = (
    ("Stable Diffusion 1.x", {"clip_l": 768}),
    ("Stable Diffusion 2.x", {"clip_h": 1024}),
    ("Stable Diffusion XL", {"clip_l": 768, "clip_g": 1280}),
)
"""Model families by the widths of their text encoders, which tell what a token was made for."""


def family_of(widths: Mapping[str, int]) -> str:
    """What rows of these widths by text encoder belong to: "Stable Diffusion 2.x (clip_h x 1024)"."""
    shown = ", ".join(f"{name} x {width}" for name, width in widths.items())
    family = next((name for name, known in _FAMILIES if known == dict(widths)), "a model of its own kind")
    return f"{family} ({shown})"
