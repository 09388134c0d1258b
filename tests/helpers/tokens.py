"""Learned tokens of random rows."""

from __future__ import annotations

import torch
from fakes import WIDTH

from ice_core.concepts import LearnedConcept, LearnedConcepts
from ice_core.model.backbone import Token


def token(name: str, width: int = WIDTH, rows: int = 1, encoders: tuple[str, ...] = ("clip_l",)) -> Token:
    rng = torch.Generator().manual_seed(len(name) * 31 + sum(name.encode()))
    return Token(name, {e: torch.randn(rows, width, generator=rng) for e in encoders})


def learned(keys: tuple[str, ...] = ("zebra", "ball", "ball-2"), width: int = WIDTH) -> LearnedConcepts:
    axes = ("color", "material")
    return LearnedConcepts(
        concepts=tuple(
            LearnedConcept(
                key,
                key.partition("-")[0],
                token(f"{key}.instance", width),
                token(f"{key}.object", width),
                {axis: token(f"{key}.{axis}", width) for axis in axes},
            )
            for key in keys
        ),
        axes=axes,
        base_name="fake",
        base_fingerprint="f" * 64,
        architecture="stable-diffusion-v1",
        seed=7,
        steps=40,
    )
