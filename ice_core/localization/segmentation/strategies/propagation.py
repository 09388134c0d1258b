"""The words' maps, spread along self-attention, compared at every pixel.

DiffSegmenter, arXiv 2309.02773; iterated and with more decided attention: iSeg, arXiv 2409.03209.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ice_core.localization.segmentation.config import SegmentationConfig
from ice_core.localization.segmentation.grids import aggregate, largest, upsample
from ice_core.localization.segmentation.labels import balanced, each_concept
from ice_core.localization.segmentation.maps import AttentionMaps
from ice_core.model.attention import Size

_LEAST = 1e-8


def propagate(maps: Tensor, attention: Tensor, power: int, sharpness: float = 1.0) -> Tensor:
    """Spread maps [W, P] along row-stochastic self-attention [P, P], `power` times.

    Every position takes the mean of the positions it attends to (DiffSegmenter, arXiv 2309.02773,
    equation 6; iterated and with more decided attention: iSeg, arXiv 2409.03209). sharpness: exponent
    of the attention before its rows are normalised again.
    """
    if sharpness != 1:
        attention = (attention / attention.amax(1, keepdim=True)).pow(sharpness)
        attention = attention / attention.sum(1, keepdim=True)
    for _ in range(power):
        maps = maps @ attention.T
    return maps


def by_propagation(
    maps: AttentionMaps, pixels: Size, config: SegmentationConfig
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each concept: the words' maps [3, H, W], and each as its share of the three."""
    size = largest(maps.words)
    attention = aggregate(maps.self_attention) if config.power else None
    for shares in each_concept(maps.words, size):
        if attention is not None:
            spread = propagate(shares.flatten(1), attention, config.power, config.sharpness)
            shares = spread.unflatten(1, size)
        words = upsample(balanced(shares, config.balance), pixels)
        yield words, words / words.sum(0, keepdim=True).clamp(min=_LEAST)
