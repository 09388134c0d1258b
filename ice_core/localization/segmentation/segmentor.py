"""From a picture and words to masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ice_core.errors import IceError
from ice_core.localization.segmentation.config import SegmentationConfig
from ice_core.localization.segmentation.grids import largest
from ice_core.localization.segmentation.guided import guided_filter
from ice_core.localization.segmentation.maps import (
    BACKGROUND,
    AttentionMaps,
    attention_maps,
    encode_views,
)
from ice_core.localization.segmentation.strategies import STRATEGIES
from ice_core.model.attention import Size
from ice_core.model.backbone import Backbone

MOST_PIECES = 32
"""Of the tokenizer, that the words of one pass have together: the more there are, the less attention is left
for each."""


@dataclass(frozen=True)
class Segmentation:
    """mask, background: [H, W] bool, CPU, disjoint; the rest of the picture is other things.

    relevance: [H, W] float in 0..1, CPU: the concept's share among the three words' (balanced) maps.
    score: how much the mask stands out, see `contrast`.
    """

    mask: Tensor
    background: Tensor
    score: float
    relevance: Tensor


def segment(
    backbone: Backbone, image: Tensor, concept: str, config: SegmentationConfig, generator: torch.Generator
) -> Segmentation:
    """Which pixels of an image [3, H, W] in 0..1 a word means (method of ICE, section 3.1).

    H and W must be multiples of `backbone.multiple`. generator: on the CPU, draws the noise.
    Raises IceError for an image that is no picture, an empty word, or settings the model cannot serve.
    """
    return segment_words(backbone, image, [concept], config, generator)[0]


@torch.no_grad()
def segment_words(
    backbone: Backbone,
    image: Tensor,
    concepts: Sequence[str],
    config: SegmentationConfig,
    generator: torch.Generator,
    views: Tensor | None = None,
) -> list[Segmentation]:
    """`segment` of several words, in one pass of the model where they have no more than `MOST_PIECES` pieces
    together (ours). Each is compared with things and background alone: masks may overlap.

    views: latents of `encode_views` by `config.flip`, where they are known already.
    """
    check_picture(image, backbone.multiple)
    if not all(concept.strip() for concept in concepts):
        raise IceError("cannot segment an empty word; name what to look for, for example 'ball'")
    views = encode_views(backbone, image, config.flip) if views is None else views
    guide = image.to(backbone.device)
    found: list[Segmentation] = []
    for some in _passes(backbone, concepts):
        found += segment_maps(attention_maps(backbone, views, some, config, generator), guide, config)
    return found


def _passes(backbone: Backbone, concepts: Sequence[str]) -> list[list[str]]:
    """Which words are looked for together, in their order."""
    passes: list[list[str]] = []
    room = 0
    for concept in concepts:
        pieces = len(next(iter(backbone.word_rows(concept).values())))
        if not passes or pieces > room:
            passes.append([])
            room = MOST_PIECES
        passes[-1].append(concept)
        room -= pieces
    return passes


@torch.no_grad()
def segment_maps(maps: AttentionMaps, image: Tensor, config: SegmentationConfig) -> list[Segmentation]:
    """Segment an image [3, H, W] by attention maps that were recorded on it, on the same device: one
    segmentation for each concept of the maps."""
    size, pixels = largest(maps.words), (image.shape[1], image.shape[2])
    decided = STRATEGIES[config.method](maps, pixels, config)
    return [_chosen(words, share, image, size, config) for words, share in decided]


def _chosen(
    words: Tensor, share: Tensor, image: Tensor, size: Size, config: SegmentationConfig
) -> Segmentation:
    """Where each of a concept, things and background wins by what a strategy says, fitted to the picture."""
    if config.guide:
        radius = max(1, round(config.guide * image.shape[1] / size[0]))
        words, share = guided_filter(torch.cat([words, share]), image.float(), radius).split(len(words))
        share = share.clamp(0, 1)
    chosen = words.argmax(0)
    mask, relevance = (chosen == 0).cpu(), share[0].cpu()
    background = (chosen == len(words) + BACKGROUND).cpu()
    return Segmentation(mask, background, contrast(relevance, mask, ~mask), relevance)


def contrast(relevance: Tensor, inside: Tensor, outside: Tensor) -> float:
    """Mean relevance [H, W] inside a mask minus the mean outside, in 0..1; 0 for an empty mask."""
    if not inside.any():
        return 0.0
    least = relevance[outside].mean().item() if outside.any() else 0.0
    return min(1.0, max(0.0, relevance[inside].mean().item() - least))


def check_picture(image: Tensor, multiple: int = 1) -> None:
    """Raise IceError unless `image` is a finite [3, H, W] in 0..1 whose sides are multiples of `multiple`."""
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise IceError(f"the picture has shape {list(image.shape)}; it must be [3, height, width]")
    if not image.isfinite().all():
        raise IceError("the picture holds NaN or infinite values; check the step that made it")
    low, high = image.min().item(), image.max().item()
    # Resizing overshoots a little; a wrong scale (0..255 or -1..1) is far off.
    if low < -0.5 or high > 1.5:
        raise IceError(f"the picture has values from {low:g} to {high:g}; they must be in 0..1")
    height, width = image.shape[1:]
    if height % multiple or width % multiple:
        raise IceError(
            f"the picture is {width} x {height} pixels; the model needs sides that are multiples of "
            f"{multiple}: resize or crop it to {max(1, width // multiple) * multiple} x "
            f"{max(1, height // multiple) * multiple}"
        )
