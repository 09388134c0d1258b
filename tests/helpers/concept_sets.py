"""Concept sets of random tokens, with a picture of colored squares and what was read of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from extractions import scene
from tokens import learned

from ice_core.concepts import Candidate, Concept, Reading
from ice_core.files.concept_set import SavedConcepts
from ice_core.files.images import jpeg_bytes

NEAR = {"red": ("coral",), "coral": ("red",)}


def reading(axis: str, value: str, weight: float = 0.9) -> Reading:
    return Reading(
        axis, (Candidate(value, weight), Candidate("other", 1 - weight)), "clip", True, NEAR.get(value, ())
    )


def concept_set(
    keys: tuple[str, ...] = ("ball", "cube"),
    colors: tuple[str, ...] = ("red", "blue"),
    materials: tuple[str, ...] = ("metal", "wood"),
    title: str = "squares",
    architecture: str = "stable-diffusion-v1",
    size: tuple[int, int] = (96, 160),
) -> SavedConcepts:
    """One or two objects, at the red and at the blue square of `extractions.scene`."""
    image, masks = scene(*size)
    one = learned(keys)
    concepts = tuple(
        replace(c, readings={"color": reading("color", color), "material": reading("material", material)})
        for c, color, material in zip(one.concepts, colors, materials, strict=False)
    )
    return SavedConcepts(
        learned=replace(one, concepts=concepts, architecture=architecture),
        found=tuple(Concept(c.key, c.label, m, 0.8) for c, m in zip(concepts, masks, strict=False)),
        background=~torch.stack(masks).any(0),
        settings={"seed": 7},
        title=title,
        date="2026-05-31T12:00:00+00:00",
        version="0.1.0",
        sheet=jpeg_bytes(image),
        picture=jpeg_bytes(image),
    )
