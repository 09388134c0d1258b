"""New masks beside those of earlier concepts: no pixel has two owners."""

from __future__ import annotations

import torch
from torch import Tensor

from ice_core.concepts import Concept, ConceptSet, unique_key
from ice_core.localization.config import LocalizationConfig
from ice_core.localization.segmentation import Segmentation, components, contrast

_MOST_OVERLAP = 0.5
"""A component that was explained before by more than this share of its area is nothing new."""


def explained(result: ConceptSet) -> Tensor:
    """[H, W] bool: masks and background."""
    covered = result.background.clone()
    for concept in result.concepts:
        covered |= concept.mask
    return covered


def new_concepts(
    result: ConceptSet,
    label: str,
    segmentation: Segmentation,
    known: Tensor,
    config: LocalizationConfig,
) -> tuple[Concept, ...]:
    """Components of the mask that are mostly new to `known` [H, W] bool; no pixel changes its owner."""
    keys = {concept.key for concept in result.concepts}
    owned = torch.zeros_like(result.background)
    for concept in result.concepts:
        owned |= concept.mask
    found = []
    for part in components(segmentation.mask, config.min_area, neck=config.neck):
        if (part & known).sum() > _MOST_OVERLAP * part.sum():
            continue
        mask = part & ~owned
        if mask.float().mean() <= config.min_area:
            continue
        key = unique_key(label, keys)
        keys.add(key)
        score = contrast(segmentation.relevance, mask, ~segmentation.mask)
        found.append(Concept(key, label, mask, score))
    return tuple(found)


def extend(result: ConceptSet, found: tuple[Concept, ...], background: Tensor) -> ConceptSet:
    """New concepts, and new background wherever there is no concept."""
    concepts = (*result.concepts, *found)
    background = result.background | background
    for concept in concepts:
        background = background & ~concept.mask
    return ConceptSet(result.image, concepts, background)
