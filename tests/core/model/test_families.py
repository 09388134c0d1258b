"""Widths of text encoders tell the model family."""

from __future__ import annotations

import pytest

from ice_core.model.families import family_of


@pytest.mark.parametrize(
    ("widths", "name"),
    [
        ({"clip_l": 768}, "Stable Diffusion 1.x (clip_l x 768)"),
        ({"clip_h": 1024}, "Stable Diffusion 2.x (clip_h x 1024)"),
        ({"clip_g": 1280, "clip_l": 768}, "Stable Diffusion XL (clip_g x 1280, clip_l x 768)"),
        ({"clip_l": 64}, "a model of its own kind (clip_l x 64)"),
    ],
)
def test_widths_tell_the_family(widths: dict[str, int], name: str) -> None:
    assert family_of(widths) == name
