"""Every object of a picture at once, without a word for any: what is no background, cut into things.

Foreground is where the model does not attend to the word "background" of a plain prompt (the dual prompt of
FA-Seg, arXiv 2506.23323, with one word that fits all things); within it, places that the model's own
self-attention keeps together are one thing (normalized cuts, Shi and Malik 2000, on the heads that tell
things apart), and the picture's edges say where it ends (guided filter, He et al. 2013; random walks, Grady
2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.localization.segmentation.affinities import AFFINITIES
from ice_core.localization.segmentation.components import components
from ice_core.localization.segmentation.config import ObjectsConfig
from ice_core.localization.segmentation.cuts import normalized_cuts
from ice_core.localization.segmentation.grids import largest, upsample
from ice_core.localization.segmentation.guided import guided_filter
from ice_core.localization.segmentation.labels import word_shares
from ice_core.localization.segmentation.maps import (
    ANY_THING,
    BACKGROUND,
    MOST_POSITIONS,
    NoisedPass,
    encode_views,
    noised_pass,
)
from ice_core.localization.segmentation.outlines import walked
from ice_core.localization.segmentation.segmentor import check_picture
from ice_core.model.attention import Kind, Size
from ice_core.model.backbone import Backbone

_TO_WORDS: tuple[Kind, ...] = ("cross",)
_TO_ITSELF: tuple[Kind, ...] = ("self",)
MOST_CELLS = 48 * 32
"""Affinities of more places than this are not cut: the eigenvectors of 64 x 64 places take minutes."""
_OWN = 0.4
"""A cell belongs to a part of the foreground that covers more than this share of it."""
_LEAST_CELLS = 4
_SHARP = 1e-4
"""Colour variance below which the guided filter takes a window for flat."""


@dataclass(frozen=True)
class Objects:
    """masks: [H, W] bool each, CPU, disjoint, largest first; foreground: [H, W] bool, CPU, what is no
    background, which the masks lie in; relevance: [H, W] in 0..1, CPU, how far from background."""

    masks: tuple[Tensor, ...]
    foreground: Tensor
    relevance: Tensor


@torch.no_grad()
def find_objects(
    backbone: Backbone,
    image: Tensor,
    config: ObjectsConfig,
    generator: torch.Generator,
    min_area: float = 0.025,
    neck: float = 0.7,
    latent: Tensor | None = None,
) -> Objects:
    """Objects of an image [3, H, W] in 0..1, each larger than `min_area` of the picture.

    neck: as for `components`. generator: on the CPU. latent: [1, C, h, w] of the image, where it is known
    already. Raises IceError for what is no picture, and settings that the model cannot serve.
    """
    check_picture(image, backbone.multiple)
    latent = encode_views(backbone, image, flip=False) if latent is None else latent
    seen = noised_pass(backbone, latent, [ANY_THING], config.timestep, config.draws, generator, _TO_WORDS)
    guide = image.to(backbone.device).float()
    relevance = _relevance(seen, guide, config)
    foreground = (relevance > config.foreground).cpu()
    parts = components(foreground, min_area)
    masks: list[Tensor] = []
    if parts:
        # Layers that are too large to be cut need not be kept, where there are others.
        small = [size for size in seen.recorder.recorded_sizes("cross") if _count(size) <= MOST_CELLS]
        most = MOST_CELLS if small else MOST_POSITIONS
        seen = noised_pass(
            backbone, latent, [ANY_THING], config.cut_timestep, config.draws, generator, _TO_ITSELF, most
        )
        size = cut_size(seen)
        bonds = AFFINITIES[config.affinity](seen.heads(size))
        for part in parts:
            for own in _things(part, bonds, size, guide, config):
                masks += components(own, min_area, neck=neck)
        if config.walk:
            masks = walked(
                masks, relevance.cpu(), guide.cpu(), config.walk, _radius(0.25, size, foreground.shape)
            )
    masks.sort(key=lambda mask: -int(mask.sum()))
    return Objects(tuple(masks), foreground, relevance.cpu())


def cut_size(seen: NoisedPass) -> Size:
    """The largest recorded self-attention that can be cut (height, width); the smallest if none can."""
    sizes = seen.recorder.recorded_sizes("self")
    fitting = [size for size in sizes if size[0] * size[1] <= MOST_CELLS]
    return max(fitting, key=_count) if fitting else min(sizes, key=_count)


def _count(size: Size) -> int:
    return size[0] * size[1]


def _relevance(seen: NoisedPass, guide: Tensor, config: ObjectsConfig) -> Tensor:
    """How little each pixel of `guide` attends to "background": [H, W] in 0..1."""
    maps = seen.words()
    size, pixels = largest(maps), (guide.shape[1], guide.shape[2])
    share = 1 - word_shares(maps, size)[BACKGROUND]
    share = upsample(share[None], pixels)
    if config.guide:
        share = guided_filter(share, guide, _radius(config.guide, size, pixels), _SHARP)
    return share[0].clamp(0, 1)


def _things(part: Tensor, bonds: Tensor, size: Size, guide: Tensor, config: ObjectsConfig) -> list[Tensor]:
    """A connected part [H, W] bool of the foreground as the things [H, W] bool that it holds."""
    pixels = (part.shape[0], part.shape[1])
    cells = (F.interpolate(part.float()[None, None], size=size, mode="area").flatten() > _OWN).nonzero()[:, 0]
    at = cells.to(bonds.device)
    groups = normalized_cuts(bonds[at][:, at], config.cut, _LEAST_CELLS)
    if len(groups) < 2:
        return [part]
    seeds = torch.zeros(len(groups), size[0] * size[1])
    for n, group in enumerate(groups):
        seeds[n, cells[group]] = 1
    maps = upsample(seeds.unflatten(1, size), pixels).to(guide)
    if config.guide:
        maps = guided_filter(maps, guide, _radius(config.guide / 2, size, pixels), _SHARP)
    owner = maps.argmax(0).cpu()
    return [(owner == n) & part for n in range(len(groups))]


def _radius(cells: float, size: Size, pixels: Sequence[int]) -> int:
    """Attention cells as pixels, at least one."""
    return max(1, round(cells * pixels[0] / size[0]))
