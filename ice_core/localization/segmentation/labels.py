"""Words for places: maps of the prompt's words, and a vote per region."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ice_core.localization.segmentation.grids import upsample
from ice_core.localization.segmentation.maps import BACKGROUND, THINGS
from ice_core.model.attention import Size

_LEAST = 1e-8


def word_shares(words: Mapping[Size, Tensor], size: Size) -> Tensor:
    """Attention per word {(h, w): [W, h, w]} -> the words' shares [W, *size], mean over resolutions.

    At every position the shares sum to 1.
    """
    shares = []
    for maps in words.values():
        maps = upsample(maps.float(), size)
        shares.append(maps / maps.sum(0, keepdim=True).clamp(min=_LEAST))
    return torch.stack(shares).mean(0)


def each_concept(words: Mapping[Size, Tensor], size: Size) -> Iterator[Tensor]:
    """For each concept of attention {(h, w): [W, h, w]}: shares [3, *size] of it, things and background."""
    for concept in range(len(words[size]) + THINGS):
        own = {at: maps[[concept, THINGS, BACKGROUND]] for at, maps in words.items()}
        yield word_shares(own, size)


def balanced(maps: Tensor, balance: float) -> Tensor:
    """Maps [W, H, W] over their L2 norm to the power `balance` (1: unit norm, 0: as they are)."""
    norm = maps.flatten(1).norm(dim=1).clamp(min=_LEAST)
    return maps / norm.pow(balance)[:, None, None]


def region_means(regions: Tensor, maps: Tensor) -> Tensor:
    """Means [R, W] of maps [W, H, W] over the regions [H, W] with indices 0..R-1 (0 for empty ones)."""
    index = regions.flatten()
    count = index.bincount().clamp(min=1)
    total = torch.zeros(len(count), len(maps), dtype=maps.dtype, device=maps.device)
    return total.index_add_(0, index, maps.flatten(1).T) / count[:, None]


def vote(regions: Tensor, maps: Tensor) -> Tensor:
    """Word index per pixel [H, W]: every region takes the word with the largest mean."""
    return region_means(regions, maps).argmax(1)[regions]
