"""Prompt templates shared by training, Stage Two and the pictures of a result."""

from __future__ import annotations

NEUTRAL_TEMPLATES: tuple[str, ...] = (
    "a photo of a {}",
    "a photo of the {}",
    "a photo of one {}",
    "a good photo of a {}",
    "a good photo of the {}",
    "a bright photo of the {}",
    "a clean photo of a {}",
    "a close-up photo of a {}",
    "a close-up photo of the {}",
    "a cropped photo of the {}",
    "a nice photo of a {}",
    "a rendering of a {}",
    "a rendering of the {}",
)
"""Photo prompts that say nothing about the subject (Gal et al. 2022, appendix; our own selection)."""

SEGMENTATION_TEMPLATE = "{} things background"
"""Prompt of the attention segmentor: the concept, everything else, and the ground it stands on."""

PRIOR_TEMPLATE = "a photo of a {}"
"""Prompt of the model's own pictures that refinement is to leave as they are: a plain label."""
