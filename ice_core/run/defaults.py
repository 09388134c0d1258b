"""What a run does unless told otherwise, apart from the settings' own defaults; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

AXES = ("color", "material", "pattern")
BUNDLED_STEPS = 400
"""Training steps of the methods that start from labels alone, with the bundled model, which learns faster
than a large one."""
CHECKPOINT_STEPS = 800
SNAPSHOT_EVERY = 20
ANCHORED_STEPS = 16
"""At most: that method ends when it has settled."""
METHODS: tuple[str, ...] = ("words", "anchored", "paper", "inversion")
METHOD: Literal["anchored"] = "anchored"
"""How tokens come about, see `ice_core.training.config.Method`."""
DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Precisions that a model can be opened in, by name."""
OTHERS = ("ball", "cup", "chair", "shoe")
"""Things that a property is shown on where a picture has nothing else: of one material and color each, and
words that every model of photographs draws. The bundled model has its own."""
CLIPS = {
    "clip_g": "ViT-bigG-14/laion2b_s39b_b160k",
    "clip_h": "ViT-H-14/laion2b_s32b_b79k",
    "clip_l": "ViT-L-14-quickgelu/openai",
}
"""What names the objects of a photograph, as open_clip's NAME/WEIGHTS, by the text encoder of a model that
was trained beside it: that of XL, of Stable Diffusion 2 and of 1. The first that a model has counts."""


def clip_for(encoders: Collection[str]) -> str:
    """The CLIP in whose space a model's words lie. encoders: names of its text encoders."""
    return next((clip for encoder, clip in CLIPS.items() if encoder in encoders), CLIPS["clip_l"])
